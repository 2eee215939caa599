"""Where the time of a request went, for a caller that asks: by parameter, by metadata, on a stream, through the SDK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import numpy as np
import pytest

import trtserve_client
from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_client import cli
from trtserve_protos import oip, row_inference
from trtserve_protos.oip import ModelInferRequest
from trtserve_protos.timing import Timing
from trtserve_protos.wishes import TIMING, metadata_key

Script = Callable[..., Any]

KEY = metadata_key(TIMING)
BY_METADATA = ((KEY, "true"),)
PHASES = ("queue_ns", "batch_wait_ns", "input_ns", "compute_ns", "output_ns")


@pytest.fixture
def double(serve: Callable[..., RunningServer], tmp_path: Path) -> RunningServer:
    """A server with a model that doubles."""
    return serve(model=(str(make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")),))


def request(model: str = "double", **fields: Any) -> ModelInferRequest:
    return infer_request(model, {"x": np.ones((1, 4), np.float32)}, **fields)


def call(client: Client, message: ModelInferRequest, metadata: Any = ()) -> Any:
    method = oip.METHODS["ModelInfer"]
    unary = client.channel.unary_unary(
        method.path, lambda each: each.SerializeToString(), method.response_class.FromString
    )
    return unary(message, metadata=metadata, timeout=20)


def timing_of(response: Any) -> Timing:
    values = {
        name: getattr(parameter, parameter.WhichOneof("parameter_choice"))
        for name, parameter in response.parameters.items()
        if name.startswith(TIMING)
    }
    return Timing(*(values.pop(f"{TIMING}_{name}") for name in Timing._fields))


@pytest.mark.parametrize("value", [True, "true"])
def test_a_request_asks_by_its_parameter(
    double: RunningServer, connect: Callable[..., Client], value: bool | str
) -> None:
    client = connect(double)
    for _ in range(2):  # the second one follows the plan of the first
        timing = timing_of(call(client, request(parameters={TIMING: value})))
        assert min(timing[:5]) >= 0
        assert timing[5:] == (1, "double/1#0", "onnxruntime")


def test_a_call_asks_by_its_metadata(double: RunningServer, connect: Callable[..., Client]) -> None:
    client = connect(double)
    assert not call(client, request()).parameters
    assert timing_of(call(client, request(), BY_METADATA)).batch_rows == 1
    assert not call(client, request(), ((KEY, "false"),)).parameters
    assert not call(client, request(parameters={TIMING: False})).parameters


def test_a_timing_comes_with_outputs_that_were_asked_for_and_with_typed_contents(
    double: RunningServer, connect: Callable[..., Client]
) -> None:
    client = connect(double)
    assert timing_of(call(client, request(outputs=["y"]), BY_METADATA)).batch_rows == 1
    assert timing_of(call(client, request(raw=False), BY_METADATA)).batch_rows == 1


def unary(client: Client, message: ModelInferRequest, metadata: Any) -> Any:
    return call(client, message, metadata)


def on_a_stream(client: Client, message: ModelInferRequest, metadata: Any) -> Any:
    (answer,) = client.stream([message], metadata=metadata)
    return answer.infer_response


def in_rows(client: Client, message: ModelInferRequest, metadata: Any) -> Any:
    method = row_inference.METHODS["InferRows"]
    infer = client.channel.unary_stream(
        method.path, lambda each: each.SerializeToString(), method.response_class.FromString
    )
    (answer,) = infer(method.request_class(batch=message), metadata=metadata, timeout=20)
    return answer.response


KINDS = (unary, on_a_stream, in_rows)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("by_metadata", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_call_tells_all_of_it_in_either_way(
    script: Script, kind: Callable[..., Any], by_metadata: bool, raw: bool
) -> None:
    m = script()
    m.engine.latency_s = lambda rows: 0.002
    asks = {} if by_metadata else {"parameters": {TIMING: True}}
    begun = monotonic()
    response = kind(m.client, request("m", raw=raw, **asks), BY_METADATA if by_metadata else ())
    passed_ns = (monotonic() - begun) * 1e9
    timing = timing_of(response)
    assert timing[5:] == (1, "m/1#0", "scripted")
    assert timing.queue_ns > 0 <= timing.batch_wait_ns and min(timing.input_ns, timing.output_ns) >= 0
    assert timing.compute_ns >= 2e6
    assert sum(timing[:5]) <= passed_ns


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_tells_the_sum_of_its_steps_and_a_cached_answer_that_nothing_ran(
    serve: Callable[..., RunningServer], connect: Callable[..., Client], tmp_path: Path, kind: Callable[..., Any]
) -> None:
    make_models.save(make_models.scale(2.0), tmp_path / "double" / "1" / "model.onnx")
    steps = [
        f'[[ensemble]]\nmodel = "double"\ninputs = {{ x = "{given}" }}\noutputs = {{ y = "{made}" }}\n'
        for given, made in (("x", "mid"), ("mid", "y"))
    ]
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "model.toml").write_text("response_cache = true\n" + "".join(steps))
    client = connect(serve(model_repository=(str(tmp_path),), inline_run_limit_us=0))
    timing = timing_of(kind(client, request("twice"), BY_METADATA))
    assert timing[5:] == (1, "twice", "ensemble")
    parts = client.statistics("double").inference_stats
    assert timing.queue_ns + timing.batch_wait_ns == pytest.approx(parts.queue.ns, abs=10)
    assert (timing.input_ns, timing.compute_ns) == (parts.compute_input.ns, parts.compute_infer.ns)
    assert timing.output_ns == parts.compute_output.ns
    whole = client.statistics("twice").inference_stats
    assert whole.queue.ns == pytest.approx(parts.queue.ns, abs=10)
    cached = timing_of(kind(client, request("twice"), BY_METADATA))
    assert cached[1:] == (0, 0, 0, 0, 1, "cache", "ensemble")


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_that_says_neither_yes_nor_no_is_refused(
    double: RunningServer, connect: Callable[..., Client], kind: Callable[..., Any]
) -> None:
    client = connect(double)
    for key in (KEY, "trtserve-cache"):
        with pytest.raises(grpc.RpcError) as caught:
            kind(client, request(), ((key, "maybe"),))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == f"metadata {key!r} is 'maybe'; wanted is true or false"
    kind(client, request(), ((f"{KEY}s", "maybe"), ("x-other", "maybe")))


def test_a_value_that_says_neither_yes_nor_no_is_refused(double: RunningServer, connect: Callable[..., Client]) -> None:
    error = connect(double).error("ModelInfer", request(parameters={TIMING: "maybe"}))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"parameter {TIMING!r} is 'maybe'; wanted is true or false"


def test_a_stream_asks_by_metadata_for_every_answer_or_by_parameter_for_one(
    double: RunningServer, connect: Callable[..., Client]
) -> None:
    client = connect(double)
    answers = client.stream([request() for _ in range(5)], metadata=BY_METADATA)
    assert [timing_of(answer.infer_response).engine for answer in answers] == ["onnxruntime"] * 5
    answers = client.stream([request(id="plain"), request(id="asks", parameters={TIMING: True})])
    responses = {answer.infer_response.id: answer.infer_response for answer in answers}
    assert f"{TIMING}_queue_ns" not in responses["plain"].parameters
    assert timing_of(responses["asks"]).engine == "onnxruntime"


def test_the_timing_names_the_batch_and_the_instance_that_ran_it(script: Script) -> None:
    m = script(instances=2)
    m.gate.shut()
    first = m.client.future(request("m", parameters={TIMING: True}))
    m.gate.batch()
    second = m.client.future(request("m", parameters={TIMING: True}))
    m.gate.batch()  # both instances are busy
    rest = [m.client.future(request("m", parameters={TIMING: True})) for _ in range(3)]
    m.wait_for_queue(3)
    queued = monotonic()
    m.client.call("ServerLive")
    opened = monotonic()
    m.gate.open()
    alone = [timing_of(future.result(20)) for future in (first, second)]
    assert {timing.instance for timing in alone} == {"m/1#0", "m/1#1"}
    together = [timing_of(future.result(20)) for future in rest]
    assert [(timing.batch_rows, timing.engine) for timing in together] == [(3, "scripted")] * 3
    assert min(timing.queue_ns for timing in together) >= (opened - queued) * 1e9


def test_the_statistics_hold_the_same_in_sum(double: RunningServer, connect: Callable[..., Client]) -> None:
    client = connect(double)
    timings = [timing_of(call(client, request(), BY_METADATA)) for _ in range(20)]
    stats = client.statistics("double").inference_stats
    queued = sum(timing.queue_ns + timing.batch_wait_ns for timing in timings)
    assert stats.queue.ns == pytest.approx(queued, abs=2 * len(timings))  # each is rounded down to whole ns
    for name, phase in (("input_ns", stats.compute_input), ("compute_ns", stats.compute_infer)):
        assert phase.ns == sum(getattr(timing, name) for timing in timings)


def test_the_sdk_gives_the_timing_with_the_result(double: RunningServer) -> None:
    inputs = {"x": np.ones((1, 4), np.float32)}
    with trtserve_client.Client(double.url) as client:
        assert client.infer("double", inputs).timing is None
        timing = client.infer("double", inputs, parameters={TIMING: True}).timing
        assert isinstance(timing, trtserve_client.Timing)
        assert (timing.batch_rows, timing.engine) == (1, "onnxruntime")
        asked = client.stream("double", [inputs] * 3, metadata={KEY: "true"})
        assert [result.timing is not None for result in asked] == [True] * 3


def test_the_command_line_says_where_the_time_went(double: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--url", double.url, "infer", "double", "--input", "x=[[1, 2, 3, 4]]"]
    assert cli.main([*words, "--timing"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[3:-1]] == [
        "phase",
        *(phase.removesuffix("_ns") for phase in PHASES),
    ]
    assert printed.endswith("on double/1#0 (onnxruntime), in a batch of 1 rows\n")
    assert cli.main(words) == 0
    assert "phase" not in capsys.readouterr().out
