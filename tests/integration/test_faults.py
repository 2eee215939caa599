"""What goes wrong around a server, and that it serves the next request: peers, the clock, the loop, engines."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support import half_http2
from tests.support.oip_client import WAIT_S, Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_protos import oip, row_inference
from trtserve_server import app

pytestmark = pytest.mark.beside

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]
Script = Callable[..., Any]

INFER = oip.METHODS["ModelInfer"].path
STREAM = oip.METHODS["ModelStreamInfer"].path


@pytest.fixture
def double(serve: Serve, tmp_path: Path) -> RunningServer:
    """A server with a model that doubles."""
    return serve(model=(str(make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")),))


def request(model: str = "double", value: float = 1.0, **fields: Any) -> Any:
    return infer_request(model, {"x": np.full((1, 4), value, np.float32)}, **fields)


def serves(client: Client, model: str = "double") -> bool:
    factor = 2 if model == "double" else 1
    return bool((client.infer(request(model))["y"] == factor).all())


# ---- Peers


@pytest.mark.parametrize("path", [INFER, STREAM])
def test_a_client_that_sends_half_a_message_and_stalls_holds_up_nobody(
    double: RunningServer, connect: Connect, path: str
) -> None:
    client = connect(double)
    data = request().SerializeToString()
    with half_http2.connection(double.url) as stalled:
        stalled.sendall(half_http2.begun_call(path, len(data), data[: len(data) // 2]))
        assert stalled.recv(1)  # the server has begun to speak
        assert all(serves(client) for _ in range(20))
    assert serves(client)
    assert double.stop()


ROWS = row_inference.METHODS["InferRows"].path
METADATA = oip.METHODS["ModelMetadata"].path


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(half_http2.PREFACE[:10], id="half a preface"),
        pytest.param(half_http2.PREFACE, id="a preface"),
        *(pytest.param(half_http2.begun_call(path, 100, b"half"), id=path) for path in (INFER, STREAM, ROWS, METADATA)),
        pytest.param(half_http2.begun_call("/no/such", 100, b"half"), id="an unknown call"),
    ],
)
def test_who_has_not_sent_a_message_whole_does_not_hold_up_the_stop(
    double: RunningServer, connect: Connect, said: bytes
) -> None:
    client = connect(double)
    with half_http2.connection(double.url) as stalled:
        stalled.sendall(said)
        assert serves(client)
        begun = time.monotonic()
        assert double.stop(drain_timeout_s=3600)
        assert time.monotonic() - begun < 60


def test_an_answer_on_its_way_to_a_slow_reader_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    file = make_models.save(make_models.linear(features=1, classes=2**20), tmp_path / "wide.onnx")
    server = serve(model=(str(file),))
    data = infer_request("wide", {"x": np.ones((1, 1), np.float32)}).SerializeToString()
    with ThreadPoolExecutor() as pool, half_http2.connection(server.url) as slow:
        slow.sendall(half_http2.begun_call(INFER, len(data), data) + half_http2.end_of_call())
        statistics = server.app.registry.find("wide").statistics
        server.wait_until(lambda: statistics.requests.count == 1)
        stopping = pool.submit(server.stop, 60)
        server.wait_until(lambda: not server.app.ready)
        read = len(slow.recv(1 << 16))
        assert not stopping.done()
        slow.sendall(half_http2.more_room(1 << 23))
        while read < 4 * 2**20:
            read += len(slow.recv(1 << 16))
        assert stopping.result(60)


def test_a_run_whose_callers_are_gone_does_not_hold_up_the_stop(script: Script) -> None:
    m = script()
    m.gate.shut()
    gone = m.client.future(request("m"))
    m.gate.batch()
    gone.cancel()
    m.wait_for_failures(1)
    begun = time.monotonic()
    assert m.server.stop(drain_timeout_s=3600)
    assert time.monotonic() - begun < 60


def test_a_caller_who_never_reads_is_given_the_drain_time_and_is_told_to_be_lost(serve: Serve, tmp_path: Path) -> None:
    file = make_models.save(make_models.linear(features=1, classes=2**20), tmp_path / "wide.onnx")
    server = serve(model=(str(file),))
    data = infer_request("wide", {"x": np.ones((1, 1), np.float32)}).SerializeToString()
    with half_http2.connection(server.url) as deaf:
        deaf.sendall(half_http2.begun_call(INFER, len(data), data) + half_http2.end_of_call())
        statistics = server.app.registry.find("wide").statistics
        server.wait_until(lambda: statistics.requests.count == 1)
        assert not server.stop(drain_timeout_s=0.2)


def test_a_thousand_connections_opened_and_dropped_leave_nothing_behind(
    double: RunningServer, connect: Connect
) -> None:
    client = connect(double)
    assert serves(client)
    before = len(os.listdir("/proc/self/fd"))
    begun = half_http2.begun_call(INFER, 100, b"half")
    beginnings = [b"", half_http2.PREFACE[:10], half_http2.PREFACE, b"GET / HTTP/1.1\r\n\r\n", begun]
    for wave in range(20):
        connections = [half_http2.connection(double.url) for _ in range(50)]
        for number, each in enumerate(connections):
            each.sendall(beginnings[number % len(beginnings)])
            if (number + wave) % 2:  # half of them end with a reset
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()
    with half_http2.connection(double.url) as last:  # who is heard when all before have been
        last.sendall(begun)
        assert last.recv(1)
    double.wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)
    assert serves(client)


@pytest.mark.parametrize(("interval_ms", "ends"), [(0, half_http2.PING), (5_000, half_http2.GOAWAY)])
def test_pings_keep_a_silent_connection_unless_they_are_too_many(
    serve: Serve, tmp_path: Path, interval_ms: int, ends: int
) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),), min_ping_interval_ms=interval_ms)
    with half_http2.connection(server.url) as silent, silent.makefile("rb") as stream:
        silent.sendall(half_http2.begun_call(INFER, 100, b"half"))
        answers = half_http2.answers_to_pings(stream)
        for number in range(1, 11):
            silent.sendall(half_http2.ping(number))
            kind, payload = next(answers)
            if kind == half_http2.GOAWAY:
                assert payload == b"too_many_pings"
                break
            assert int.from_bytes(payload, "big") == number
        assert kind == ends


@pytest.mark.parametrize("transport", ["auto", "asyncio"])
def test_a_peer_that_does_not_say_that_it_lives_is_given_up(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr(app, "_SILENCE_MS", 100)
    monkeypatch.setattr(app, "_ECHO_MS", 100)
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),), transport=transport)
    with half_http2.connection(server.url) as mute:
        mute.sendall(half_http2.begun_call(STREAM, 100, b"half"))
        server.wait_until(lambda: len(server.app.streams) == 1)
        with suppress(ConnectionResetError):
            while mute.recv(1 << 16):
                pass  # the question, which is not answered
        server.wait_until(lambda: not server.app.streams)


def test_a_slow_reader_does_not_slow_the_others(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    file = make_models.save(make_models.linear(features=1, classes=2**18), tmp_path / "wide.onnx")
    small = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file), str(small)), stream_window=2, default_max_batch_size=2)
    one = np.ones((1, 1), np.float32)
    slow = connect(server).stream(infer_request("wide", {"x": one}) for _ in range(1000))
    server.wait_until(lambda: [stream.held for stream in server.app.streams] == [2])
    client = connect(server)
    assert all(serves(client) for _ in range(20))
    slow.cancel()
    server.wait_until(lambda: not server.app.streams)


# ---- The loop and the clock


class Lines(logging.Handler):
    """The lines of a logger as they come."""

    def __init__(self, logger: str) -> None:
        super().__init__()
        self._logger = logging.getLogger(logger)
        self._lines: SimpleQueue[str] = SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put(record.getMessage())

    def next(self) -> str:
        """The next line; waits for it."""
        return self._lines.get(timeout=WAIT_S)

    def __enter__(self) -> Lines:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)


def test_a_blocked_event_loop_is_logged_with_its_place_and_counted(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = serve(model=(str(file),), loop_stall_s=1.0)
    released = threading.Event()

    def something_that_blocks() -> None:
        assert released.wait(WAIT_S)

    with Lines("trtserve_server.loop_watch") as lines:
        server.loop.call_soon_threadsafe(something_that_blocks)
        told = lines.next()
        assert "the event loop is blocked since 1" in told and "something_that_blocks" in told
        released.set()
        assert lines.next().startswith("the event loop was blocked for 1")
    assert serves(connect(server))
    assert "trtserve_loop_stalls_total 1.0" in server.metrics()


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_clock_that_jumps_changes_no_deadline(
    double: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """The wall clock as Python shows it, to our code and to gRPC's; the machine's own would jump for everybody."""
    messages: SimpleQueue[Any] = SimpleQueue()
    stream = connect(double).stream(iter(messages.get, None), timeout=60)
    messages.put(request(id="before"))
    assert next(stream).infer_response.id == "before"
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump_s)
    messages.put(request(id="after"))
    messages.put(request(id="limited", parameters={"timeout": 50_000_000}))
    messages.put(None)
    assert {answer.infer_response.id: answer.error_message for answer in stream} == {"after": "", "limited": ""}


# ---- Engines


def gives(outputs: dict[str, np.ndarray]) -> Callable[[Any], dict[str, np.ndarray]]:
    return lambda inputs: outputs


def raises(inputs: Any) -> dict[str, np.ndarray]:
    raise ArithmeticError("no number")


@pytest.mark.parametrize(
    ("compute", "text"),
    [
        (raises, "failed with ArithmeticError; the log has the details"),
        (gives({}), "the model gave no output 'y'"),
        (gives({"y": np.zeros((1, 4), np.float64)}), "the model gave output 'y' as float64, float32 is declared"),
        (
            gives({"y": np.zeros((1, 5), np.float32)}),
            "the model gave output 'y' with shape [1, 5], [-1, 4] is declared",
        ),
        (gives({"y": np.zeros(4, np.float32)}), "the model gave output 'y' with shape [4], [-1, 4] is declared"),
        (gives({"y": np.zeros((0, 4), np.float32)}), "with shape [0, 4] for a batch of 1 rows"),
        (gives({"y": np.zeros((2, 4), np.float32)}), "with shape [2, 4] for a batch of 1 rows"),
    ],
)
def test_an_engine_that_fails_or_breaks_its_word_fails_its_batch_alone(script: Script, compute: Any, text: str) -> None:
    m = script(proto=make_models.scale(1.0))
    good = m.engine.compute
    m.engine.compute = compute
    error = m.client.error("ModelInfer", request("m"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details().startswith("model 'm'") and text in error.details()
    m.engine.compute = good
    assert serves(m.client, "m")
    assert m.client.statistics("m").inference_stats.fail.count == 1


def sample(text: str, name: str) -> float:
    """The one sample of a metric."""
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return float(line.rsplit(" ", 1)[1])


@pytest.fixture
def nan_count(serve: Serve, connect: Connect, tmp_path: Path) -> Callable[[str], tuple[int, int]]:
    """Batches searched and found after 3 batches, the first and the last with NaN, with this in model.toml."""

    def count(config: str) -> tuple[int, int]:
        folder = tmp_path / "m" / "1"
        folder.mkdir(parents=True)
        make_models.save(make_models.scale(2.0), folder / "model.onnx")
        (tmp_path / "m" / "model.toml").write_text(config)
        server = serve(model_repository=(str(tmp_path),))
        client = connect(server)
        for value in (np.nan, 1.0, np.nan):
            np.testing.assert_array_equal(client.infer(request("m", value))["y"], 2 * value)
        text = server.metrics()
        return int(sample(text, "trtserve_nan_searched_batches_total")), int(sample(text, "trtserve_nan_batches_total"))

    return count


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        ("nan_check_interval = 1", (3, 2)),
        ("nan_check_interval = 2", (2, 2)),
        ("", (1, 1)),
        ("nan_check_interval = 0", (0, 0)),
    ],
)
def test_nan_is_answered_and_counted(
    nan_count: Callable[[str], tuple[int, int]], caplog: pytest.LogCaptureFixture, config: str, counts: tuple[int, int]
) -> None:
    assert nan_count(config) == counts
    assert caplog.text.count("output 'y' holds NaN") == min(1, counts[1])
