"""A server process that is told to stop under full load: nothing that it took is lost, what it refuses says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from tests.models import make_models
from tests.support import half_http2
from tests.support.oip_client import Client, arrays_of, infer_request
from tests.support.server_process import ServerProcess
from tests.support.shared_object import SharedObject
from trtserve_protos import oip, row_inference

Connect = Callable[..., Client]

REQUESTS = 10_000
CONNECTIONS = 4
IN_FLIGHT = 8  # on each connection
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts server processes with a model that doubles; they end with the test."""
    file = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    processes: list[ServerProcess] = []

    def make(*arguments: str) -> ServerProcess:
        processes.append(ServerProcess(str(file), *arguments))
        return processes[-1]

    yield make
    for process in processes:
        process.close()


def message(number: int) -> bytes:
    request = infer_request("double", {"x": np.full((1, 4), number, np.float32)}, id=str(number))
    return request.SerializeToString()


def number_of(response: oip.ModelInferResponse) -> int:
    """The number of the request whose answer this is; it must be right."""
    number = int(response.id)
    np.testing.assert_array_equal(arrays_of(response)["y"], np.full((1, 4), 2 * number))
    return number


class Load:
    """Sends every number once to the server at `url`, and what that one refuses to the other at `spare`."""

    def __init__(self, url: str, spare: str) -> None:
        self._urls = (url, spare)
        self._numbers = iter(range(REQUESTS))
        self.answered: Counter[int] = Counter()
        self.ends: Counter[grpc.StatusCode] = Counter()
        self.early = asyncio.Event()
        """Set when a fifth has been answered."""

    async def run(self) -> None:
        """Until every number is answered or its call has ended otherwise."""
        kinds = [self._unary] * (CONNECTIONS - 1) + [self._stream]
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(self._connection(kind))

    async def _connection(self, kind: Callable[..., Any]) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with (
            grpc.aio.insecure_channel(self._urls[0], options) as first,
            grpc.aio.insecure_channel(self._urls[1], options) as spare,
        ):
            await kind(first, spare)

    async def _unary(self, first: grpc.aio.Channel, spare: grpc.aio.Channel) -> None:
        method = oip.METHODS["ModelInfer"]
        calls = [channel.unary_unary(method.path, None, method.response_class.FromString) for channel in (first, spare)]

        async def worker() -> None:
            call = calls[0]
            for number in self._numbers:
                try:
                    self._note(await call(message(number), timeout=60))
                except grpc.aio.AioRpcError as error:
                    self.ends[error.code()] += 1
                    if error.code() is UNAVAILABLE:
                        call = calls[1]
                        self._note(await call(message(number), timeout=60))

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())

    async def _stream(self, first: grpc.aio.Channel, spare: grpc.aio.Channel) -> None:
        method = oip.METHODS["ModelStreamInfer"]
        unanswered: set[int] = set()
        for channel in (first, spare):
            places = asyncio.Semaphore(IN_FLIGHT)
            again = list(unanswered)

            async def requests(again: list[int] = again, places: asyncio.Semaphore = places) -> AsyncIterator[bytes]:
                numbers = chain(again, self._numbers)
                # First the place: a number that was taken and waits for one would be lost with the stream.
                while await places.acquire() and (number := next(numbers, None)) is not None:
                    unanswered.add(number)
                    yield message(number)

            call = channel.stream_stream(method.path, None, method.response_class.FromString)(requests(), timeout=60)
            try:
                async for answer in call:
                    assert answer.error_message == ""
                    unanswered.discard(number_of(answer.infer_response))
                    self._note(answer.infer_response)
                    places.release()
                return
            except grpc.aio.AioRpcError as error:
                # A write that fails makes grpc.aio put its own status in place: https://github.com/grpc/grpc/issues/36066
                replaced = (error.details() or "").startswith("Internal error from Core")
                self.ends[UNAVAILABLE if replaced else error.code()] += 1

    def _note(self, response: oip.ModelInferResponse) -> None:
        self.answered[number_of(response)] += 1
        if len(self.answered) == REQUESTS // 5:
            self.early.set()


def test_under_full_load_none_of_10_000_requests_is_lost(start: Callable[..., ServerProcess]) -> None:
    server, spare = start(), start()

    async def load_and_stop() -> Load:
        load = Load(server.url, spare.url)
        running = asyncio.ensure_future(load.run())
        await load.early.wait()
        server.signal()
        await running
        return load

    load = asyncio.run(load_and_stop())
    assert len(load.answered) == REQUESTS
    assert set(load.answered.values()) == {1}
    assert set(load.ends) == {UNAVAILABLE}
    assert server.wait() == 0
    assert "drained; stopped" in server.log
    assert "Traceback" not in server.log


def test_every_kind_of_call_that_is_open_is_answered_to_its_end(script: Callable[..., Any], connect: Connect) -> None:
    m = script(default_max_batch_size=1, allow_client_shared_memory=True)
    ones = np.ones((1, 4), np.float32)
    memory = SharedObject(32)
    m.client.call("SystemSharedMemoryRegister", name="r", key=memory.key, byte_size=32)
    memory.put(ones)
    shared = infer_request("m", {"x": ones})
    del shared.raw_input_contents[:]
    for tensor, offset in ((shared.inputs[0], 0), (shared.outputs.add(name="y"), 16)):
        tensor.parameters["shared_memory_region"].string_param = "r"
        tensor.parameters["shared_memory_byte_size"].int64_param = 16
        tensor.parameters["shared_memory_offset"].int64_param = offset
    half_closed: SimpleQueue[Any] = SimpleQueue()
    m.gate.shut()
    try:
        unary = m.client.future(infer_request("m", {"x": ones}))
        m.gate.batch()
        by_memory = m.client.future(shared)
        whole = m.client.stream([infer_request("m", {"x": ones})] * 5)
        open_end = m.client.stream(iter(half_closed.get, None))
        for _ in range(3):
            half_closed.put(infer_request("m", {"x": ones}))
        rows_method = row_inference.METHODS["InferRows"]
        infer_rows = m.client.channel.unary_stream(
            rows_method.path, lambda each: each.SerializeToString(), rows_method.response_class.FromString
        )
        batch = infer_request("m", {"x": np.ones((40, 4), np.float32)})
        rows = infer_rows(rows_method.request_class(batch=batch, window=2), timeout=60)
        m.wait_for_queue(1 + 5 + 3 + 2)
        with ThreadPoolExecutor() as pool:
            stopping = pool.submit(m.server.stop, 60)
            m.server.wait_until(lambda: m.server.app._intake.closed)
            assert connect(m.server).error("ModelInfer", infer_request("m", {"x": ones})).code() is UNAVAILABLE
            assert not stopping.done()
            m.gate.open()
            np.testing.assert_array_equal(arrays_of(unary.result(60))["y"], ones)
            by_memory.result(60)
            np.testing.assert_array_equal(memory.get(np.float32, (4,), 16), ones[0])
            assert [answer.error_message for answer in whole] == [""] * 5
            assert [next(open_end).error_message for _ in range(3)] == [""] * 3
            with pytest.raises(grpc.RpcError) as ended:
                next(open_end)
            assert ended.value.code() is UNAVAILABLE
            assert sum(answer.row_count for answer in rows) == 40
            assert stopping.result(60)
    finally:
        half_closed.put(None)
        memory.close()


def test_peers_that_never_say_all_leave_the_exit_code_0(start: Callable[..., ServerProcess], connect: Connect) -> None:
    server = start("--drain-timeout-s=3600")
    path, data = oip.METHODS["ModelInfer"].path, message(1)
    with ExitStack() as peers:
        for said in (b"", half_http2.PREFACE, half_http2.begun_call(path, len(data), data[:-1])):
            peers.enter_context(half_http2.connection(server.url)).sendall(said)
        connect(server.url).infer(infer_request("double", {"x": np.ones((1, 4), np.float32)}))
        server.signal()
        assert server.wait() == 0
    assert "drained; stopped" in server.log


def test_calls_are_taken_for_the_shutdown_delay_although_health_says_not_serving(
    start: Callable[..., ServerProcess], connect: Connect
) -> None:
    server = start("--shutdown-delay-s=1")
    client = connect(server.url)
    watcher = client.watch("")
    assert next(watcher) == "SERVING"
    request = infer_request("double", {"x": np.ones((1, 4), np.float32)})
    server.signal()
    signalled = monotonic()
    assert next(watcher) == "NOT_SERVING"
    assert not client.call("ServerReady").ready
    answered = 0
    try:
        while monotonic() < signalled + 30:
            client.infer(request)
            answered += 1
    except grpc.RpcError as error:
        refused = error
    assert monotonic() - signalled >= 0.9  # the server's own clock may have started a little before
    assert answered > 0
    assert refused.code() is UNAVAILABLE
    assert server.wait() == 0
    assert "taking calls for 1 s more, then draining" in server.log


def test_a_second_signal_does_not_wait_for_the_shutdown_delay(
    start: Callable[..., ServerProcess], connect: Connect
) -> None:
    server = start("--shutdown-delay-s=3600")
    watcher = connect(server.url).watch("")
    assert next(watcher) == "SERVING"
    server.signal()
    assert next(watcher) == "NOT_SERVING"
    server.signal()
    assert server.wait() == 1
