"""Loading and unloading at run time through gRPC: what is answered, what is refused, and that no request is lost."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.gate import GatedEngines
from tests.support.oip_client import WAIT_S, Client, arrays_of, infer_request
from tests.support.running_server import RunningServer
from trtserve_protos import oip
from trtserve_server.models import loader

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]

X = np.ones((1, 4), np.float32)


def save(folder: Path, factor: float, version: int = 1) -> None:
    """A model "k" that multiplies by `factor`, put in place as a whole."""
    file = make_models.save(make_models.scale(factor), folder / "k" / f"{version}" / "model.new")
    os.replace(file, file.with_suffix(".onnx"))


def factor(client: Client, **fields: Any) -> float:
    return float(client.infer(infer_request("k", {"x": X}, **fields))["y"][0, 0])


def index(client: Client) -> list[tuple[str, str, str, str]]:
    return [(m.name, m.version, m.state, m.reason) for m in client.call("RepositoryIndex").models]


def load(client: Client, name: str = "k", **parameters: Any) -> Any:
    return client.call("RepositoryModelLoad", load_request(name, **parameters))


def load_request(name: str, **parameters: Any) -> Any:
    request = oip.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        field = {str: "string_param", bytes: "bytes_param", bool: "bool_param"}[type(value)]
        setattr(request.parameters[key.replace("__", ":")], field, value)
    return request


@pytest.fixture
def explicit(serve: Serve, connect: Connect, tmp_path: Path) -> Client:
    """A client of a server in explicit mode with "k" (factor 2) in its repository, not loaded."""
    save(tmp_path, 2)
    return connect(serve(model_repository=(str(tmp_path),), model_control_mode="explicit"))


def test_load_serve_unload_and_load_again(explicit: Client) -> None:
    assert index(explicit) == [("k", "", "UNAVAILABLE", "not loaded; RepositoryModelLoad loads it")]
    assert explicit.call("ServerReady").ready
    assert explicit.error("ModelInfer", infer_request("k", {"x": X})).code() is grpc.StatusCode.NOT_FOUND
    for _ in range(2):
        load(explicit)
        assert (factor(explicit), index(explicit)) == (2, [("k", "1", "READY", "")])
        assert explicit.call("ModelReady", name="k").ready
        explicit.call("RepositoryModelUnload", model_name="k")
        assert index(explicit) == [("k", "1", "UNAVAILABLE", "unloaded")]
        assert not explicit.call("ModelReady", name="k").ready
        assert explicit.call("ServerReady").ready
        error = explicit.error("ModelInfer", infer_request("k", {"x": X}))
        assert (error.code(), "unloaded" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
    assert len(explicit.call("RepositoryIndex", ready=True).models) == 0
    assert len(explicit.call("ModelStatistics").model_stats) == 0


def test_a_model_given_as_a_file_is_loaded_at_the_start_and_may_be_unloaded(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "k.onnx")
    client = connect(serve(model=(str(file),), model_control_mode="explicit"))
    assert factor(client) == 2
    client.call("RepositoryModelUnload", model_name="k")
    make_models.save(make_models.scale(3.0), file)
    load(client)
    assert factor(client) == 3


def test_kserves_form_of_the_calls_is_understood(explicit: Client) -> None:
    answer = explicit.call("RepositoryModelLoad", repository_name="k")
    assert (answer.model_name, answer.isLoaded, factor(explicit)) == ("k", True, 2)
    answer = explicit.call("RepositoryModelUnload", repository_name="k")
    assert (answer.model_name, answer.isUnloaded) == ("k", True)
    assert explicit.call("RepositoryModelLoad", model_name="k").SerializeToString() == b""


def test_what_has_changed_is_loaded_and_other_versions_take_over(explicit: Client, tmp_path: Path) -> None:
    load(explicit)
    save(tmp_path, 3)
    load(explicit)
    assert factor(explicit) == 3
    save(tmp_path, 5, version=2)
    load(explicit)
    assert (factor(explicit), explicit.call("ModelMetadata", name="k").versions) == (5, ["2"])
    (tmp_path / "k" / "model.toml").write_text('versions = "all"')
    load(explicit)
    assert (factor(explicit, model_version="1"), factor(explicit, model_version="2")) == (3, 5)


def test_a_failed_reload_keeps_the_old_one_serving_and_shows_why(explicit: Client, tmp_path: Path) -> None:
    load(explicit)
    (tmp_path / "k" / "1" / "model.onnx").write_bytes(b"no model")
    error = explicit.error("RepositoryModelLoad", load_request("k"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "model 'k' cannot be loaded" in error.details() and "not an ONNX model" in error.details()
    ((_, version, state, reason),) = index(explicit)
    assert (version, state, factor(explicit)) == ("1", "READY", 2)
    assert reason.startswith("what was loaded before serves on; loading it again failed: ")
    save(tmp_path, 7)
    load(explicit)
    assert (index(explicit), factor(explicit)) == ([("k", "1", "READY", "")], 7)


def test_a_model_that_cannot_be_loaded_says_why_and_can_be_mended(explicit: Client, tmp_path: Path) -> None:
    (tmp_path / "k" / "config.pbtxt").write_text("max_batch_size: 8 input { name: 'z' }")
    error = explicit.error("RepositoryModelLoad", load_request("k"))
    assert (error.code(), "'z'" in error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    assert index(explicit)[0][2] == "UNAVAILABLE"
    (tmp_path / "k" / "config.pbtxt").unlink()
    load(explicit)
    assert factor(explicit) == 2


def test_a_configuration_given_with_the_call_stands_in_for_the_models_own(explicit: Client, tmp_path: Path) -> None:
    (tmp_path / "k" / "config.pbtxt").write_text("max_batch_size: 4")
    load(explicit)
    assert explicit.call("ModelConfig", name="k").config.max_batch_size == 4
    load(explicit, config=json.dumps({"maxBatchSize": 9, "instance_group": [{"count": 2}]}))
    config = explicit.call("ModelConfig", name="k").config
    assert (config.max_batch_size, config.instance_group[0].count) == (9, 2)
    load(explicit)
    assert explicit.call("ModelConfig", name="k").config.max_batch_size == 4


NUL_LABEL = '{"output": [{"name": "y", "label_filename": "a\\u0000b"}]}'
MANY_THREADS = '{"parameters": {"intra_op_thread_count": {"string_value": "99999999"}}}'
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (load_request(""), INVALID, "no model name given"),
        (load_request("kk"), NOT_FOUND, "model 'kk' is in no repository; did you mean 'k'"),
        (load_request("../k"), NOT_FOUND, "'../k' is in no repository"),
        (oip.RepositoryModelLoadRequest(repository_name="r", model_name="k"), UNIMPLEMENTED, "'r'"),
        (load_request("k", config="{"), INVALID, "not a ModelConfig in JSON"),
        (load_request("k", config='{"max_batch": 1}'), INVALID, "max_batch"),
        (load_request("k", config='{"max_batch_size": -1}'), INVALID, "max_batch_size = -1"),
        (load_request("k", config='{"instance_group": [{"count": 2000000}]}'), INVALID, "at most 1024"),
        (load_request("k", config='{"name": "other"}'), INVALID, "'other'"),
        (load_request("k", config='{"backend": "python"}'), INVALID, "'python'"),
        (load_request("k", config='{"default_model_filename": "../../x.onnx"}'), INVALID, "inside the model's folder"),
        (load_request("k", config='{"default_model_filename": "x\\u0000"}'), INVALID, "inside the model's folder"),
        (load_request("k", config='{"output": [{"label_filename": "/etc/passwd"}]}'), INVALID, "'/etc/passwd'"),
        (load_request("k", config=NUL_LABEL), INVALID, "inside the model's folder"),
        (load_request("k", config=MANY_THREADS), INVALID, "intra_op_threads = 99999999; it must be at most 1024"),
        (load_request("k", config=True), INVALID, "wanted is a ModelConfig in JSON as a string"),
        (load_request("k", colour="red"), INVALID, "'colour' is unknown"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(
    explicit: Client, request_: Any, code: grpc.StatusCode, words: str
) -> None:
    error = explicit.error("RepositoryModelLoad", request_)
    assert (error.code(), words in error.details()) == (code, True), error.details()
    load(explicit)
    assert factor(explicit) == 2


class NoThread(Thread):
    """What a thread is where the system gives no more of them."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def test_a_model_that_gets_no_thread_says_so_and_can_be_loaded_later(
    serve: Serve, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 2)
    client = connect(serve(model_repository=(str(tmp_path),), model_control_mode="explicit", inline_run_limit_us=0))
    with monkeypatch.context() as patch:
        patch.setattr("trtserve_server.scheduling.instance.Thread", NoThread)
        error = client.error("RepositoryModelLoad", load_request("k"))
    assert (error.code(), "can't start new thread" in error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    load(client)
    assert factor(client) == 2


def test_unload_refuses_what_it_does_not_know(explicit: Client) -> None:
    error = explicit.error("RepositoryModelUnload", model_name="k")
    assert error.code() is NOT_FOUND  # it has never been loaded
    load(explicit)
    request = oip.RepositoryModelUnloadRequest(model_name="k")
    request.parameters["unload_dependents"].string_param = "yes"
    assert explicit.error("RepositoryModelUnload", request).code() is INVALID
    request.parameters["unload_dependents"].bool_param = True
    explicit.call("RepositoryModelUnload", request)
    assert index(explicit)[0][2] == "UNAVAILABLE"


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_other_modes_refuse_with_what_to_set(serve: Serve, connect: Connect, tmp_path: Path, mode: str) -> None:
    save(tmp_path, 2)
    client = connect(serve(model_repository=(str(tmp_path),), model_control_mode=mode))
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        error = client.error(name, model_name="k")
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"--model-control-mode {mode}" in error.details() and "explicit" in error.details()
    assert client.error("RepositoryIndex", repository_name="r").code() is UNIMPLEMENTED
    assert factor(client) == 2


class TestGated:
    """With a model "m" whose batches are held at a gate."""

    @pytest.fixture
    def engines(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        engines = GatedEngines(lambda inputs: {"y": inputs["x"].copy()})
        monkeypatch.setattr(loader, "open_engine", engines)
        yield engines
        engines.gate.open()

    @pytest.fixture
    def server(self, serve: Serve, tmp_path: Path, engines: Any) -> RunningServer:
        self.file = make_models.save(make_models.identity(), tmp_path / "m.onnx")
        return serve(model=(str(self.file),), model_control_mode="explicit", inline_run_limit_us=0)

    def test_unload_answers_what_was_accepted_and_refuses_what_comes(
        self, server: RunningServer, connect: Connect, engines: Any
    ) -> None:
        client, engine = connect(server), engines.engine
        engines.gate.shut()
        running = client.future(infer_request("m", {"x": X}))
        held = engines.gate.batch()
        waiting = client.future(infer_request("m", {"x": 2 * X}))
        server.wait_until(lambda: server.app.registry.find("m").waiting == 1)
        unload = self.unload(client)
        server.wait_until(lambda: server.app.registry.entry("m").state.value == "UNLOADING")
        error = client.error("ModelInfer", infer_request("m", {"x": X}))
        assert (error.code(), "being unloaded" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
        load = self.load(client)
        assert index(client) == [("m", "1", "UNLOADING", "unloaded")]
        assert not (unload.done() or load.done() or engine.closed)
        engines.gate.let_pass()
        held.release()
        assert (arrays_of(running.result())["y"][0, 0], arrays_of(waiting.result())["y"][0, 0]) == (1, 2)
        unload.result(), load.result()  # the load has waited for its turn
        assert (engine.closed, engine.open_contexts) == (True, 0)
        assert client.infer(infer_request("m", {"x": 3 * X}))["y"][0, 0] == 3

    def test_the_new_one_serves_while_the_old_one_answers(
        self, server: RunningServer, connect: Connect, engines: Any
    ) -> None:
        client, old = connect(server), engines.engine
        engines.gate.shut()
        running = client.future(infer_request("m", {"x": X}))
        held = engines.gate.batch()
        engines.gate.let_pass()
        os.utime(self.file, ns=(1, 1))
        load(client, "m")
        assert client.infer(infer_request("m", {"x": 2 * X}))["y"][0, 0] == 2
        assert (engines.engine is old, old.closed, running.done()) == (False, False, False)
        held.release()
        assert arrays_of(running.result())["y"][0, 0] == 1
        server.wait_until(lambda: old.closed)

    def test_a_model_that_loads_says_so(self, server: RunningServer, connect: Connect, engines: Any) -> None:
        client = connect(server)
        client.call("RepositoryModelUnload", model_name="m")
        engines.gate.shut()
        under_way = self.load(client)
        held = engines.gate.batch()  # the self-test
        assert index(client) == [("m", "1", "LOADING", "")]
        assert not client.call("ModelReady", name="m").ready
        error = client.error("ModelInfer", infer_request("m", {"x": X}))
        assert (error.code(), "is loading" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
        engines.gate.let_pass()
        held.release()
        under_way.result()
        assert index(client) == [("m", "1", "READY", "")]

    def test_a_load_under_way_does_not_hold_up_the_servers_end(
        self, server: RunningServer, connect: Connect, engines: Any
    ) -> None:
        client = connect(server)
        engines.gate.shut()
        os.utime(self.file, ns=(1, 1))
        under_way = self.load(client)
        held = engines.gate.batch()  # the self-test of the new one
        stopping = ThreadPoolExecutor(1).submit(server.stop, WAIT_S)
        error = under_way.exception()
        assert (error.code(), "stopping" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
        held.release()
        engines.gate.open()
        assert stopping.result()

    def load(self, client: Client) -> Any:
        method = oip.METHODS["RepositoryModelLoad"]
        call = client.channel.unary_unary(method.path, None, method.response_class.FromString)
        return call.future(load_request("m").SerializeToString(), timeout=WAIT_S)

    def unload(self, client: Client) -> Any:
        method = oip.METHODS["RepositoryModelUnload"]
        call = client.channel.unary_unary(method.path, None, method.response_class.FromString)
        request = oip.RepositoryModelUnloadRequest(model_name="m")
        return call.future(request.SerializeToString(), timeout=WAIT_S)


def test_calls_for_one_model_from_all_sides_leave_it_whole(explicit: Client) -> None:
    load(explicit)
    with ThreadPoolExecutor(8) as pool:
        names = ["RepositoryModelLoad", "RepositoryModelUnload"] * 8
        for call in [pool.submit(explicit.call, name, model_name="k") for name in names]:
            call.result()
    load(explicit)
    assert (factor(explicit), index(explicit)) == (2, [("k", "1", "READY", "")])


@pytest.mark.parametrize("mode", ["explicit", "poll"])
def test_no_request_is_lost_while_versions_change(serve: Serve, connect: Connect, tmp_path: Path, mode: str) -> None:
    """Requests without a pause over ten changes: each is answered, by the old one or by the new one."""
    save(tmp_path, 1)
    options = {"explicit": {"load_model": ("k",)}, "poll": {"repository_poll_interval_s": 0.01}}[mode]
    server = serve(model_repository=(str(tmp_path),), model_control_mode=mode, **options)
    stop = threading.Event()

    def ask() -> list[float]:
        client, answers = connect(server), []
        while not stop.is_set():
            answers.append(factor(client))
        return answers

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(ask) for _ in range(3)]
        try:
            for number in range(2, 12):
                old = server.app.registry.find("k")
                save(tmp_path, number, version=1 + number % 2)
                shutil.rmtree(tmp_path / "k" / str(2 - number % 2), ignore_errors=True)
                if mode == "explicit":
                    load(connect(server))
                server.wait_until(lambda old=old: server.app.registry.find("k") is not old)
                assert factor(connect(server)) == number
        finally:
            stop.set()
        answers = [caller.result() for caller in callers]
    for given in answers:
        assert given == sorted(given)
        assert set(given) <= set(range(1, 12))
    assert len({value for given in answers for value in given}) > 1


def test_poll_mode_swaps_adds_and_removes(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    save(tmp_path, 2)
    server = serve(model_repository=(str(tmp_path),), model_control_mode="poll", repository_poll_interval_s=0.01)
    client, registry = connect(server), server.app.registry
    old = registry.find("k")
    save(tmp_path, 3)
    server.wait_until(lambda: registry.find("k") is not old)
    assert factor(client) == 3
    make_models.save(make_models.scale(1.0), tmp_path / "n" / "1" / "model.onnx")
    server.wait_until(lambda: ("n", "READY") in [(e.name, e.state.value) for e in registry.entries()])
    shutil.rmtree(tmp_path / "k")
    server.wait_until(lambda: [e.name for e in registry.entries()] == ["n"])
    assert client.error("ModelInfer", infer_request("k", {"x": X})).code() is NOT_FOUND


def test_readiness_counts_what_should_serve(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    save(tmp_path, 2)
    make_models.save(make_models.scale(1.0), tmp_path / "n" / "1" / "model.onnx")
    options = {"model_control_mode": "explicit", "load_model": ("*",), "strict_readiness": True}
    client = connect(serve(model_repository=(str(tmp_path),), **options))
    assert client.call("ServerReady").ready
    client.call("RepositoryModelUnload", model_name="n")
    assert client.call("ServerReady").ready  # what was unloaded on request should not serve
    (tmp_path / "n" / "1" / "model.onnx").write_bytes(b"no model")
    client.error("RepositoryModelLoad", load_request("n"))
    assert not client.call("ServerReady").ready
    assert client.states()["n"][0] == "UNAVAILABLE"
    assert next(client.watch("k")) == "SERVING"
