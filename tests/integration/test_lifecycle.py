"""The life of a server process: its start, what it says, and every way in which it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.gate import GatedEngines
from tests.support.oip_client import WAIT_S, Client, arrays_of, infer_request
from tests.support.running_server import RunningServer
from tests.support.server_process import RemoteGate, ServerProcess, run
from trtserve_protos.oip import ModelInferRequest
from trtserve_server import __version__
from trtserve_server.models import loader

Connect = Callable[..., Client]
Start = Callable[..., ServerProcess]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts server processes, which end with the test."""
    processes: list[ServerProcess] = []

    def make(*arguments: Any, **options: Any) -> ServerProcess:
        processes.append(ServerProcess(*map(str, arguments), **options))
        return processes[-1]

    yield make
    for process in processes:
        process.close()


@pytest.fixture
def gate() -> Iterator[RemoteGate]:
    made = RemoteGate()
    yield made
    made.close()


@pytest.fixture
def scripted(start: Start, gate: RemoteGate, tmp_path: Path) -> Start:
    """Starts a server process with a model "m" that gives back its input, and holds numbers of -100 and below."""
    file = make_models.save(make_models.identity(), tmp_path / "m.onnx")

    def make(*arguments: Any, **environment: str) -> ServerProcess:
        return start(
            file,
            "--inline-run-limit-us=0",
            *arguments,
            module="tests.support.scripted_server",
            environment={**gate.environment, **environment},
        )

    return make


@pytest.fixture
def double(tmp_path: Path) -> Path:
    return make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")


def request(number: int, **fields: Any) -> ModelInferRequest:
    return infer_request("m", {"x": np.full((1, 4), number, np.float32)}, **fields)


def number_of(future: Any) -> int:
    return int(arrays_of(future.result(WAIT_S))["y"][0, 0])


def waiting(process: ServerProcess) -> int:
    """Requests in the queue, as the metrics have it."""
    with urlopen(process.metrics_url, timeout=WAIT_S) as response:
        lines = response.read().decode().splitlines()
    return int(float(next(line for line in lines if line.startswith("nv_inference_pending")).rsplit(" ", 1)[1]))


# ---- The start


def test_the_banner_has_addresses_models_states_and_what_to_do_next(start: Start, double: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    process = start(double, broken, "--default-max-batch-size", "8")
    banner = process.banner
    assert banner.startswith(f"trtserve {__version__} is ready after ")
    assert process.url.startswith("127.0.0.1:")
    assert process.metrics_url == f"http://127.0.0.1:{process.metrics_url.rsplit(':', 1)[1]}"
    assert process.metrics_url.endswith("/metrics")
    rows = [line.split() for line in banner.splitlines()]
    assert ["MODEL", "VERSION", "STATE", "BACKEND", "DEVICE", "BATCH"] in rows
    assert ["double", "1", "READY", "onnxruntime", "cpu", "up", "to", "8"] in rows
    assert ["broken", "1", "UNAVAILABLE", "-", "-", "-"] in rows
    assert f"broken: {broken} (11 bytes) is not an ONNX model" in banner
    assert banner.rstrip().endswith(f"trtserve-client --url {process.url} model double")


def test_the_banner_says_when_no_model_serves(start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"")
    process = start(tmp_path / "broken.onnx")
    assert f"trtserve {__version__} is NOT READY: no model serves" in process.banner
    assert process.banner.rstrip().endswith("models")


def test_the_server_answers_by_the_time_of_the_banner(start: Start, connect: Connect, double: Path) -> None:
    client = connect(start(double).url)
    assert client.call("ServerReady").ready
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(client.infer(infer_request("double", {"x": x}))["y"], 2 * x)


def test_the_event_loop_is_uvloops(start: Start, double: Path) -> None:
    process = start(double)
    assert "is ready after" in process.banner
    assert process.maps("uvloop")


def test_the_examples_are_served_as_they_lie_there(start: Start, connect: Connect) -> None:
    process = start("--model-repository", "examples/models")
    assert "digits" in process.banner
    index = connect(process.url).call("RepositoryIndex").models
    assert {(model.name, model.state, model.reason) for model in index} >= {("digits", "READY", "")}


def test_the_examples_serve_after_less_than_3_seconds_of_work(start: Start) -> None:
    # Of the processor, which other tests on this machine do not change.
    process = start("--model-repository", "examples/models")
    assert "is ready after" in process.banner
    assert process.cpu_seconds < 3


def test_standard_output_has_the_banner_and_standard_error_the_log(start: Start, double: Path, tmp_path: Path) -> None:
    mixes = make_models.save(make_models.mixes_rows(), tmp_path / "mixes.onnx")
    process = start(double, mixes)
    assert "INFO" not in process.banner
    assert "double/1 is ready" in process.log
    assert "double/1: batched: 3 rows one by one and together gave the same numbers" in process.log
    assert "mixes/1: not batched: a row of output 'y' changes with the rows beside it" in process.log


def test_the_effective_configuration_can_be_printed_and_read_back(double: Path, tmp_path: Path) -> None:
    printed = run("--print-config", str(double), "--batching-max-queue-size", "7", TRTSERVE_INSTANCES="3")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "instances = 3" in printed.stdout
    (tmp_path / "server.toml").write_text(printed.stdout)
    again = run("--print-config", "--config", str(tmp_path / "server.toml"))
    assert (again.returncode, again.stdout) == (0, printed.stdout)


# ---- The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_well(start: Start, double: Path, number: signal.Signals) -> None:
    process = start(double)
    assert process.url
    process.signal(number)
    assert process.wait() == 0
    assert f"{number.name}: draining" in process.log
    assert "drained; stopped" in process.log
    assert "Traceback" not in process.log


def test_clients_that_stay_connected_do_not_hold_up_the_end(start: Start, connect: Connect, double: Path) -> None:
    process = start(double)
    client = connect(process.url)
    watcher, stream = client.watch(""), client.stream([])
    assert next(watcher) == "SERVING"
    assert list(stream) == []
    process.signal()
    assert process.wait() == 0
    assert list(watcher) == ["NOT_SERVING"]


def test_every_accepted_request_is_answered_before_the_end(scripted: Start, gate: RemoteGate, connect: Connect) -> None:
    process = scripted("--default-max-batch-size=2")
    client, late = connect(process.url), connect(process.url)
    watcher = client.watch("")
    assert next(watcher) == "SERVING"
    assert late.call("ServerReady").ready
    futures = [client.future(request(-100))]
    gate.wait()
    futures += [client.future(request(number)) for number in range(1, 10)]
    while waiting(process) < 9:
        pass
    process.signal()
    assert list(watcher) == ["NOT_SERVING"]
    assert late.error("ModelInfer", request(99)).code() is UNAVAILABLE
    assert not any(future.done() for future in futures)
    gate.open()
    assert [number_of(future) for future in futures] == [-100, *range(1, 10)]
    assert process.wait() == 0


def test_what_is_in_flight_on_a_stream_is_answered_before_the_end(
    scripted: Start, gate: RemoteGate, connect: Connect
) -> None:
    process = scripted()
    client = connect(process.url)
    watcher = client.watch("")
    assert next(watcher) == "SERVING"
    sent: Future = Future()

    def requests() -> Iterator[ModelInferRequest]:
        yield request(-100, id="held")
        yield infer_request("nobody", {}, id="marks that the one before has been read")
        sent.result()

    stream = client.stream(requests())
    assert next(stream).error_message
    gate.wait()
    process.signal()
    assert list(watcher) == ["NOT_SERVING"]
    gate.open()
    assert next(stream).infer_response.id == "held"
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert (caught.value.code(), "the server is stopping" in caught.value.details()) == (UNAVAILABLE, True)
    sent.set_result(None)
    assert process.wait() == 0


def test_under_load_every_call_is_answered_rightly_or_refused(start: Start, connect: Connect, double: Path) -> None:
    process = start(double)
    clients = [connect(process.url) for _ in range(4)]
    begun: list[Future] = [Future() for _ in clients]

    def ask_until_refused(number: int) -> grpc.RpcError:
        for count in range(1_000_000):
            x = np.full((1, 4), count, np.float32)
            try:
                y = clients[number].infer(infer_request("double", {"x": x}))["y"]
            except grpc.RpcError as error:
                return error
            np.testing.assert_array_equal(y, 2 * x)
            if count == 10:
                begun[number].set_result(None)
        raise AssertionError("never refused")

    with ThreadPoolExecutor(len(clients)) as pool:
        ends = [pool.submit(ask_until_refused, number) for number in range(len(clients))]
        for each in begun:
            each.result(WAIT_S)
        process.signal()
        # gRPC itself cancels what it has read and not yet handed over when it is stopped.
        assert {end.result().code() for end in ends} <= {UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert process.wait() == 0
    assert "Traceback" not in process.log


def test_under_load_no_answer_is_lost(serve: Callable[..., RunningServer], connect: Connect, double: Path) -> None:
    server = serve(model=(str(double),))
    clients = [connect(server) for _ in range(4)]
    begun: list[Future] = [Future() for _ in clients]
    message = infer_request("double", {"x": np.ones((1, 4), np.float32)})

    def count_answers(number: int) -> int:
        for count in range(1_000_000):
            try:
                clients[number].infer(message)
            except grpc.RpcError:
                return count
            if count == 10:
                begun[number].set_result(None)
        raise AssertionError("never refused")

    statistics = server.app.registry.find("double").statistics
    with ThreadPoolExecutor(len(clients)) as pool:
        counts = [pool.submit(count_answers, number) for number in range(len(clients))]
        for each in begun:
            each.result(WAIT_S)
        assert server.stop()
        assert sum(count.result() for count in counts) == statistics.requests.count
    assert statistics.failures.get("CANCELED", 0) == 0


def test_a_second_signal_ends_the_server_although_a_model_hangs(
    scripted: Start, gate: RemoteGate, connect: Connect
) -> None:
    process = scripted("--drain-timeout-s=3600")
    client = connect(process.url)
    watcher = client.watch("")
    assert next(watcher) == "SERVING"
    future = client.future(request(-100))
    gate.wait()
    process.signal()
    assert list(watcher) == ["NOT_SERVING"]
    process.signal()
    assert process.wait() == 1
    assert "SIGTERM again: stopping at once" in process.log
    assert "Traceback" not in process.log
    assert future.code() in (UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_a_drain_that_takes_too_long_ends_with_1_and_says_so(
    scripted: Start, gate: RemoteGate, connect: Connect
) -> None:
    process = scripted("--drain-timeout-s=0.1")
    future = connect(process.url).future(request(-100))
    gate.wait()
    process.signal()
    assert process.wait() == 1
    assert "requests unanswered; raise drain_timeout_s" in process.log
    assert "Traceback" not in process.log
    assert future.code() in (UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_although_a_model_loads_for_ever(
    scripted: Start, gate: RemoteGate, number: signal.Signals
) -> None:
    process = scripted(GATE_AT_LOAD="yes")
    gate.wait()
    process.signal(number)
    assert process.wait() == 0
    assert f"{number.name} during start: stopping" in process.log
    assert "Traceback" not in process.log


def test_a_signal_ends_a_server_on_which_a_model_is_loaded_for_ever(
    start: Start, gate: RemoteGate, connect: Connect, tmp_path: Path
) -> None:
    make_models.save(make_models.identity(), tmp_path / "m" / "1" / "model.onnx")
    process = start(
        f"--model-repository={tmp_path}",
        "--model-control-mode=explicit",
        module="tests.support.scripted_server",
        environment={**gate.environment, "GATE_AT_LOAD": "yes"},
    )
    with ThreadPoolExecutor(1) as caller:
        refusal = caller.submit(connect(process.url).error, "RepositoryModelLoad", model_name="m")
        gate.wait()
        process.signal()
        assert process.wait() == 0
        assert refusal.result().code() == UNAVAILABLE
    assert "drained; stopped" in process.log


def test_the_ports_can_be_listened_on_again_at_once(start: Start, connect: Connect, double: Path) -> None:
    first = start(double)
    assert connect(first.url).call("ServerReady").ready
    addresses = [first.url, first.metrics_url.removeprefix("http://").removesuffix("/metrics")]
    first.signal()
    assert first.wait() == 0
    second = start(double, "--grpc-address", addresses[0], "--http-address", addresses[1])
    assert second.url == addresses[0]
    assert connect(second.url).call("ServerReady").ready


# ---- What is left behind


def test_a_stopped_server_has_freed_its_engines(script: Callable[..., Any]) -> None:
    m = script(instances=3)
    assert number_of(m.client.future(request(7))) == 7
    assert m.engine.open_contexts == 3
    assert m.server.stop()
    assert (m.engine.open_contexts, m.engine.closed) == (0, True)


def test_a_model_that_fails_to_load_has_freed_its_engine(
    serve: Callable[..., RunningServer], connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engines = GatedEngines(lambda inputs: {}, failure=lambda number: RuntimeError("no memory"))
    monkeypatch.setattr(loader, "open_engine", engines)
    server = serve(model=(str(make_models.save(make_models.identity(), tmp_path / "m.onnx")),))
    state, reason = connect(server).states()["m"]
    assert (state, "no memory" in reason) == ("UNAVAILABLE", True)
    server.stop()
    assert engines.engine is not None
    assert (engines.engine.open_contexts, engines.engine.closed) == (0, True)


def test_a_stopped_server_leaves_no_thread_and_no_descriptor(double: Path) -> None:
    def live_once() -> None:
        server = RunningServer(model=(str(double),), inline_run_limit_us=0)
        client = Client(server.url)
        client.infer(infer_request("double", {"x": np.ones((1, 4), np.float32)}))
        client.close()
        assert server.stop()

    def left() -> tuple[set[str], int]:
        return {thread.name for thread in threading.enumerate()}, len(os.listdir("/proc/self/fd"))

    live_once()  # what the libraries keep for the process is there after the first time
    before = left()
    for _ in range(5):
        live_once()

    def more() -> tuple[set[str], bool]:
        names, descriptors = left()
        return names - before[0], descriptors > before[1] + 2

    end = time.monotonic() + WAIT_S  # gRPC closes the client's connections on threads of its own, which end after it
    while more() != (set(), False) and time.monotonic() < end:
        os.sched_yield()
    assert more() == (set(), False)
