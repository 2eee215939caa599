"""Ensembles through a real server: both kinds of configuration, batching, failures, cancellation, loading."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto

import trtserve_client
from tests.models import make_models
from tests.support.oip_client import Client, arrays_of, infer_request
from trtserve_engines.options import build
from trtserve_protos import oip
from trtserve_server.config import ModelConfig, ServerConfig
from trtserve_server.models.effective import effective_text
from trtserve_server.models.ensemble import MAX_DEPTH
from trtserve_server.models.repository import scan

ONES = np.ones((1, 4), np.float32)

PBTXT = """
platform: "ensemble"
max_batch_size: 8
input { name: "image" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "both" data_type: TYPE_FP32 dims: [ 4 ] }
ensemble_scheduling {
  step { model_name: "sum" model_version: -1
         input_map { key: "a" value: "left" } input_map { key: "b" value: "right" }
         output_map { key: "total" value: "both" } }
  step { model_name: "double" input_map { key: "x" value: "image" } output_map { key: "y" value: "left" } }
  step { model_name: "triple" model_version: 1
         input_map { key: "x" value: "image" } output_map { key: "y" value: "right" } }
}
"""

TOML = """
[[ensemble]]
model = "double"
inputs = { x = "image" }
outputs = { y = "doubled" }

[[ensemble]]
model = "triple"
inputs = { x = "doubled" }
outputs = { y = "six" }
"""


def put(folder: Path, name: str, proto: Any, config: str = "") -> None:
    make_models.save(proto, folder / name / "1" / "model.onnx")
    if config:
        (folder / name / "model.toml").write_text(config)


def put_ensemble(folder: Path, name: str, config: str, file: str = "model.toml") -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / file).write_text(config)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """double, triple and sum; the ensemble "five" of Triton's kind, and "six" of ours."""
    put(tmp_path, "double", make_models.scale(2.0))
    put(tmp_path, "triple", make_models.scale(3.0))
    put(tmp_path, "sum", make_models.add())
    put_ensemble(tmp_path, "five", PBTXT, "config.pbtxt")
    (tmp_path / "five" / "1").mkdir()
    put_ensemble(tmp_path, "six", TOML)
    return tmp_path


@pytest.fixture
def start(serve: Any, connect: Any, repository: Path) -> Callable[..., Client]:
    def started(**options: Any) -> Client:
        return connect(serve(model_repository=(str(repository),), **options))  # type: ignore[no-any-return]

    return started


def test_an_ensemble_answers_as_its_steps_do(start: Callable[..., Client]) -> None:
    client = start()
    for rows in (1, 3):
        x = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
        np.testing.assert_array_equal(client.infer(infer_request("five", {"image": x}))["both"], 5 * x)
        np.testing.assert_array_equal(client.infer(infer_request("six", {"image": x}))["six"], 6 * x)
    answers = client.stream([infer_request("six", {"image": ONES}, id=str(number)) for number in range(5)])
    assert sorted(answer.infer_response.id for answer in answers) == list("01234")
    np.testing.assert_array_equal(client.infer(infer_request("six", {"image": ONES[0]}))["six"], 6 * ONES[0])


def test_an_ensemble_takes_a_batch_in_pieces(serve: Any, repository: Path) -> None:
    batch = np.arange(400, dtype=np.float32).reshape(100, 4)
    with trtserve_client.Client(serve(model_repository=(str(repository),)).url) as client:
        pieces = [answer.result["both"] for answer in client.infer_rows("five", {"image": batch})]
    np.testing.assert_array_equal(np.concatenate(pieces), 5 * batch)
    assert len(pieces) == 13


def test_a_batch_in_pieces_counts_once_among_the_memory_in_flight(serve: Any, repository: Path) -> None:
    server = serve(model_repository=(str(repository),), max_inflight_bytes=100)
    with trtserve_client.Client(server.url) as client:
        pieces = list(client.infer_rows("five", {"image": np.ones((100, 4), np.float32)}))
    assert sum(len(each.rows) for each in pieces) == 100


def test_steps_side_by_side_are_not_refused_because_of_each_others_memory(
    serve: Any, connect: Any, repository: Path
) -> None:
    client = connect(serve(model_repository=(str(repository),), max_inflight_bytes=100, inline_run_limit_us=0))
    x = np.ones((8, 4), np.float32)  # 128 bytes: alone it may pass the limit
    np.testing.assert_array_equal(client.infer(infer_request("five", {"image": x}))["both"], 5 * x)


def test_an_ensemble_says_what_it_is(start: Callable[..., Client]) -> None:
    client = start()
    assert client.states() == dict.fromkeys(("double", "five", "six", "sum", "triple"), ("READY", ""))
    metadata = client.call("ModelMetadata", name="five")
    assert (metadata.platform, list(metadata.versions)) == ("ensemble", ["1"])
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [("image", "FP32", [-1, 4])]
    config = client.call("ModelConfig", name="five").config
    assert (config.platform, config.backend, config.max_batch_size) == ("ensemble", "", 8)
    assert [step.model_name for step in config.ensemble_scheduling.step] == ["sum", "double", "triple"]
    assert [step.model_version for step in config.ensemble_scheduling.step] == [-1, -1, 1]
    assert dict(config.ensemble_scheduling.step[0].input_map) == {"a": "left", "b": "right"}
    config = client.call("ModelConfig", name="six").config
    assert config.max_batch_size == 32
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("six", [4])]


def test_the_configuration_in_force_can_be_read_back(repository: Path) -> None:
    server = ServerConfig(model_repository=(str(repository),))
    for name, versions in scan(server).items():
        if versions[0].config.ensemble:
            values = tomllib.loads(effective_text(versions[0], server))
            assert build(ModelConfig, values, name) == versions[0].config


def test_bad_input_is_refused_by_the_ensemble(start: Callable[..., Client]) -> None:
    client = start()
    for inputs, words in (
        ({"x": ONES}, "input 'image' is missing"),
        ({"image": ONES.astype(np.float64)}, "datatype FP64 given, FP32 wanted"),
        ({"image": np.ones((9, 4), np.float32)}, "a batch of 9 rows given, 1 to 8 wanted"),
        ({"image": np.ones((1, 5), np.float32)}, "shape [1, 5] given"),
    ):
        error = client.error("ModelInfer", infer_request("five", inputs))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and words in error.details(), error.details()
    error = client.error("ModelInfer", infer_request("five", {"image": ONES}, outputs=["left"]))
    assert "has no output 'left'; it has 'both'" in error.details()


def test_statistics_count_requests_of_the_ensemble_and_of_its_steps(start: Callable[..., Client]) -> None:
    client = start()
    for _ in range(3):
        client.infer(infer_request("five", {"image": np.ones((2, 4), np.float32)}))
    for name in ("five", "double", "triple", "sum"):
        statistics = client.statistics(name)
        assert (statistics.inference_stats.success.count, statistics.inference_count) == (3, 6)
    ensemble, step = client.statistics("five").inference_stats, client.statistics("double").inference_stats
    assert ensemble.compute_infer.ns >= step.compute_infer.ns > 0


def test_an_ensemble_can_be_a_step_and_can_keep_answers(start: Callable[..., Client], repository: Path) -> None:
    put_ensemble(
        repository,
        "twelve",
        """
        response_cache = true
        [[ensemble]]
        model = "six"
        inputs = { image = "in" }
        outputs = { six = "mid" }
        [[ensemble]]
        model = "double"
        inputs = { x = "mid" }
        outputs = { y = "out" }
        """,
    )
    client = start()
    for _ in range(2):
        np.testing.assert_array_equal(client.infer(infer_request("twelve", {"in": ONES}))["out"], 12 * ONES)
    assert client.statistics("twelve").inference_stats.cache_hit.count == 1
    assert client.statistics("double").execution_count == 2


def test_ensembles_lie_in_each_other_up_to_a_bound(start: Callable[..., Client], repository: Path) -> None:
    for depth in range(1, MAX_DEPTH + 2):
        part = f"nest{depth - 1}" if depth > 1 else "double"
        put_ensemble(
            repository,
            f"nest{depth}",
            f'response_cache = true\n[[ensemble]]\nmodel = "{part}"\ninputs = {{ x = "x" }}\noutputs = {{ y = "y" }}',
        )
    client = start()
    for _ in range(2):
        np.testing.assert_array_equal(client.infer(infer_request(f"nest{MAX_DEPTH}", {"x": ONES}))["y"], 2 * ONES)
    # One from the cache of the innermost comes back through all the others without a run.
    client.infer(infer_request("nest1", {"x": 3 * ONES}))
    np.testing.assert_array_equal(client.infer(infer_request(f"nest{MAX_DEPTH}", {"x": 3 * ONES}))["y"], 6 * ONES)
    state, reason = client.states()[f"nest{MAX_DEPTH + 1}"]
    assert state == "UNAVAILABLE" and f"{MAX_DEPTH + 1} deep in each other" in reason


REFUSED = {
    "cycle": (
        '[[ensemble]]\nmodel = "double"\ninputs = {x = "a"}\noutputs = {y = "b"}\n'
        '[[ensemble]]\nmodel = "triple"\ninputs = {x = "b"}\noutputs = {y = "a"}\n',
        "step 1 takes 'a' from step 2, step 2 takes 'b' from step 1",
    ),
    "itself": ('[[ensemble]]\nmodel = "itself"\ninputs = {x = "a"}\noutputs = {y = "b"}', "'itself' needs 'itself'"),
    "one": ('[[ensemble]]\nmodel = "other"\ninputs = {x = "a"}\noutputs = {y = "b"}', "needs itself"),
    "other": ('[[ensemble]]\nmodel = "one"\ninputs = {x = "a"}\noutputs = {y = "b"}', "needs itself"),
    "unknown": (
        '[[ensemble]]\nmodel = "dubble"\ninputs = {x = "a"}\noutputs = {y = "b"}',
        "step 1 (model 'dubble'): model 'dubble' is unknown; did you mean 'double'?",
    ),
    "version": (
        '[[ensemble]]\nmodel = "double"\nversion = 7\ninputs = {x = "a"}\noutputs = {y = "b"}',
        "model 'double' has no version '7'; it has 1",
    ),
    "names": (
        '[[ensemble]]\nmodel = "double"\ninputs = {z = "a"}\noutputs = {y = "b"}',
        "has no input 'z'; it has 'x'",
    ),
    "types": (
        '[[ensemble]]\nmodel = "double"\ninputs = {x = "a"}\noutputs = {y = "b"}\n'
        '[[ensemble]]\nmodel = "whole"\ninputs = {x = "b"}\noutputs = {y = "c"}\n',
        "input 'x' of step 2 (model 'whole') is INT64 [-1, -1], output 'y' of step 1 (model 'double') is FP32 [-1, 4]",
    ),
    "rows": (
        'max_batch_size = 64\n[[ensemble]]\nmodel = "double"\ninputs = {x = "a"}\noutputs = {y = "b"}',
        "max_batch_size = 64, but step 1 (model 'double') takes at most 32 rows",
    ),
    "broken": (
        '[[ensemble]]\nmodel = "damaged"\ninputs = {x = "a"}\noutputs = {y = "b"}',
        "step 1 (model 'damaged'): model 'damaged' version 1 is unavailable",
    ),
    "field": ('[[ensemble]]\nmodle = "double"', "'modle' is unknown; did you mean 'model'?"),
    "table": ('[[ensemble]]\nmodel = "double"\ninputs = ["x"]', "wanted is a table of names"),
}


def test_what_cannot_be_is_refused_at_load_with_the_reason(start: Callable[..., Client], repository: Path) -> None:
    put(repository, "whole", make_models.identity(TensorProto.INT64))
    (repository / "damaged" / "1").mkdir(parents=True)
    (repository / "damaged" / "1" / "model.onnx").write_bytes(b"no model")
    for name, (config, _) in REFUSED.items():
        put_ensemble(repository, name, config)
    put_ensemble(
        repository, "platform", PBTXT.replace('platform: "ensemble"', 'platform: "onnxruntime_onnx"'), "config.pbtxt"
    )
    put_ensemble(repository, "empty", 'platform: "ensemble"\nensemble_scheduling { }', "config.pbtxt")
    put_ensemble(repository, "steps", 'platform: "ensemble"', "config.pbtxt")
    states = start().states()
    assert states["five"] == states["six"] == ("READY", "")
    for name, (_, words) in REFUSED.items():
        assert states[name][0] == "UNAVAILABLE" and words in states[name][1], states[name]
    assert "with ensemble_scheduling it is 'ensemble'" in states["platform"][1]
    assert "has no steps" in states["empty"][1]
    assert "without ensemble_scheduling" in states["steps"][1]


ENSEMBLE_OF_M = """
[[ensemble]]
model = "m"
inputs = { x = "in" }
outputs = { y = "mid" }
[[ensemble]]
model = "m"
inputs = { x = "in" }
outputs = { y = "beside" }
[[ensemble]]
model = "sum"
inputs = { a = "mid", b = "beside" }
outputs = { total = "out" }
"""


@pytest.fixture
def scripted(script: Any, tmp_path: Path) -> Callable[..., Any]:
    """A server with the ensemble "e": its first two steps run "m" side by side, its third a real model."""

    def started(**options: Any) -> Any:
        folder = tmp_path / "repository"
        put(folder, "sum", make_models.add(("batch", "n")))
        put_ensemble(folder, "e", ENSEMBLE_OF_M)
        return script(model_repository=(str(folder),), **options)

    return started


def test_steps_run_side_by_side_and_share_batches_with_other_requests(scripted: Callable[..., Any]) -> None:
    m = scripted()
    m.gate.shut()
    first = m.client.future(infer_request("m", {"x": ONES}))
    m.gate.batch()
    futures = [m.client.future(infer_request("e", {"in": ONES * number})) for number in range(3)]
    other = m.client.future(infer_request("m", {"x": ONES}))
    m.wait_for_queue(7)
    m.gate.open()
    for number, future in enumerate(futures):
        np.testing.assert_array_equal(arrays_of(future.result())["out"], 2 * number * ONES)
    first.result(), other.result()
    assert m.engine.batches == [1, 7]


def test_an_error_names_the_step(scripted: Callable[..., Any]) -> None:
    failing = threading.Event()
    m = scripted(failure=lambda number: ValueError("no") if failing.is_set() else None)
    failing.set()
    error = m.client.error("ModelInfer", infer_request("e", {"in": ONES}))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details().startswith("ensemble 'e', step 1 (model 'm'): model 'm': ")
    assert m.client.statistics("e").inference_stats.fail.count == 1


def test_a_cancelled_request_leaves_every_step(scripted: Callable[..., Any]) -> None:
    m = scripted()
    m.gate.shut()
    first = m.client.future(infer_request("m", {"x": ONES}))
    m.gate.batch()
    future = m.client.future(infer_request("e", {"in": ONES}))
    m.wait_for_queue(2)
    future.cancel()
    m.wait_for_queue(0)
    m.gate.open()
    first.result()
    statistics = m.server.app.registry.find("e").statistics
    m.server.wait_until(lambda: dict(statistics.failures) == {"CANCELED": 1})
    assert m.engine.batches == [1]


def test_a_deadline_reaches_every_step(scripted: Callable[..., Any]) -> None:
    m = scripted()
    m.gate.shut()
    first = m.client.future(infer_request("m", {"x": ONES}))
    m.gate.batch()
    future = m.client.future(infer_request("e", {"in": ONES}, parameters={"timeout": 50_000}))
    with pytest.raises(grpc.RpcError) as caught:
        future.result()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details().startswith("ensemble 'e', step ") and "(model 'm')" in caught.value.details()
    m.wait_for_queue(0)  # the other step's request is given up too
    m.gate.open()
    first.result()


def test_a_stop_answers_what_an_ensemble_has_accepted(scripted: Callable[..., Any]) -> None:
    m = scripted()
    m.gate.shut()
    future = m.client.future(infer_request("e", {"in": ONES}))
    m.gate.batch()
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(m.server.stop(20.0)))
    stopping.start()
    m.server.wait_until(lambda: not m.server.app.ready)
    m.gate.open()
    np.testing.assert_array_equal(arrays_of(future.result())["out"], 2 * ONES)
    stopping.join()
    assert stopped == [True]
    assert {entry.state.value for entry in m.server.app.registry.entries()} == {"UNLOADING"}


def test_an_explicit_load_brings_the_models_of_the_steps(start: Callable[..., Client]) -> None:
    client = start(model_control_mode="explicit")
    client.call("RepositoryModelLoad", model_name="six")
    np.testing.assert_array_equal(client.infer(infer_request("six", {"image": ONES}))["six"], 6 * ONES)
    states = client.states()
    assert [states[name][0] for name in ("six", "double", "triple", "five")] == ["READY"] * 3 + ["UNAVAILABLE"]


def test_an_ensemble_named_at_the_start_brings_the_models_of_the_steps(start: Callable[..., Client]) -> None:
    client = start(model_control_mode="explicit", load_model=("five",))
    np.testing.assert_array_equal(client.infer(infer_request("five", {"image": ONES}))["both"], 5 * ONES)


def test_an_ensemble_loses_a_model_and_gets_it_back(start: Callable[..., Client]) -> None:
    client = start(model_control_mode="explicit", load_model=("six",))
    client.call("RepositoryModelUnload", model_name="triple")
    state, reason = client.states()["six"]
    assert state == "UNAVAILABLE" and "step 2 (model 'triple')" in reason and "unload" in reason
    error = client.error("ModelInfer", infer_request("six", {"image": ONES}))
    assert error.code() == grpc.StatusCode.UNAVAILABLE and "'triple'" in error.details()
    client.call("RepositoryModelLoad", model_name="triple")
    np.testing.assert_array_equal(client.infer(infer_request("six", {"image": ONES}))["six"], 6 * ONES)


def test_unload_dependents_unloads_the_models_of_the_steps(start: Callable[..., Client]) -> None:
    client = start(model_control_mode="explicit", load_model=("six", "sum"))
    for dependents, states in ((False, "READY"), (True, "UNAVAILABLE")):
        message = oip.RepositoryModelUnloadRequest(model_name="six")
        message.parameters["unload_dependents"].bool_param = dependents
        client.call("RepositoryModelUnload", message)
        found = client.states()
        assert found["six"][0] == "UNAVAILABLE" and found["sum"][0] == "READY"
        assert [found[name][0] for name in ("double", "triple")] == [states] * 2
        client.call("RepositoryModelLoad", model_name="six")


def test_a_model_that_is_swapped_is_used_at_once(start: Callable[..., Client], repository: Path) -> None:
    client = start(model_control_mode="explicit", load_model=("six",))
    make_models.save(make_models.scale(10.0), repository / "triple" / "2" / "model.onnx")
    client.call("RepositoryModelLoad", model_name="triple")
    np.testing.assert_array_equal(client.infer(infer_request("six", {"image": ONES}))["six"], 20 * ONES)
    make_models.save(make_models.scale(1.0, 7), repository / "triple" / "3" / "model.onnx")
    client.call("RepositoryModelLoad", model_name="triple")
    state, reason = client.states()["six"]
    assert state == "UNAVAILABLE" and "FP32 [-1, 7]" in reason
