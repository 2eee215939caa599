"""What both gRPC servers, ours on the completion queue and the one over grpc.aio, promise to services and callers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
import uvloop

from tests.support import half_http2
from trtserve_server.transport.asyncio_server import AsyncioServer
from trtserve_server.transport.call import Call, GrpcServer, Handlers, Streaming, Unary
from trtserve_server.transport.queue_server import QueueServer

LIMIT = 1 << 16
OPTIONS = [("grpc.max_receive_message_length", LIMIT), ("grpc.so_reuseport", 0)]


class Service:
    """Calls of every kind. `calls` are those that have come and are kept, `gone` names what was cancelled or done."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Call] = SimpleQueue()
        self.gone: SimpleQueue[str] = SimpleQueue()
        self.received = 0

    def handlers(self) -> Handlers:
        return {
            "/t.T/Echo": Unary(lambda message, call: call.answer(message)),
            "/t.T/Keep": Unary(self._keep),
            "/t.T/Refuse": Unary(lambda message, call: self._refuse(call)),
            "/t.T/Raise": Unary(lambda message, call: 1 // 0),
            "/t.T/Metadata": Unary(lambda message, call: call.answer(dict(call.metadata)["asked"].encode())),
            "/t.T/Left": Unary(lambda message, call: call.answer(repr(call.time_remaining()).encode())),
            "/t.T/Count": Unary(self._count),
            "/t.T/Stream": Streaming(self._stream),
            "/t.T/PromiseMore": Unary(self._promise_more),
            "/t.T/RaiseAtOnce": Streaming(lambda call: 1 // 0),
            "/t.T/KeepAndRaise": Unary(self._keep_and_raise),
            "/t.T/ReceiveTwice": Streaming(self._receive_twice),
        }

    def _keep(self, message: bytes, call: Call) -> None:
        call.on_cancel = lambda: self.gone.put("cancelled")
        call.add_done_callback(lambda call: self.gone.put("done"))
        self.calls.put(call)

    def _keep_and_raise(self, message: bytes, call: Call) -> None:
        self._keep(message, call)
        raise ValueError

    def _receive_twice(self, call: Call) -> None:
        call.add_done_callback(lambda call: self.gone.put("done"))
        for _ in range(2):
            call.receive(lambda message: None)

    def _refuse(self, call: Call) -> None:
        call.end(grpc.StatusCode.UNAVAILABLE, "full: 100 %, später", (("wait", "5"),))
        call.answer(b"too late")
        call.end()

    def _count(self, message: bytes, call: Call) -> None:
        """As many answers as the message says."""
        left = int(message)

        def send(success: bool = True) -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                call.send(str(left).encode(), send, more=left > 0)
            else:
                call.end()

        send()

    def _promise_more(self, message: bytes, call: Call) -> None:
        """Three answers, of which the last should be followed by another one."""
        call.send(message, lambda _: call.send(message, lambda _: call.send(message, lambda _: call.end(), more=True)))

    def _stream(self, call: Call) -> None:
        """Echoes, one message at a time."""
        call.on_cancel = lambda: self.gone.put("cancelled")

        def receive(success: bool = True) -> None:
            call.receive(received)

        def received(message: bytes | None) -> None:
            if call.is_over:
                return
            if message is None:
                self.gone.put("said all")
                call.end()
            else:
                self.received += 1
                call.send(message, receive)

        receive()


class Running:
    """A server with the service on a loop in a thread, and a channel to it."""

    def __init__(self, kind: Callable[[Handlers, Any], GrpcServer]) -> None:
        self.service = Service()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self.on_loop(self._start(kind))
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")

    async def _start(self, kind: Callable[[Handlers, Any], GrpcServer]) -> GrpcServer:
        server = kind(self.service.handlers(), OPTIONS)
        self.port = server.listen("127.0.0.1:0", None)
        await server.start()
        return server

    def on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def soon(self, function: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def unary(self, name: str, message: bytes = b"x", **options: Any) -> Any:
        return self.channel.unary_unary(f"/t.T/{name}")(message, timeout=30, **options)

    def error(self, name: str, message: bytes = b"x") -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            self.unary(name, message)
        return caught.value

    def stop(self, grace_s: float = 0) -> None:
        self.on_loop(self._server.stop(grace_s))

    def close(self) -> None:
        self.channel.close()
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture(params=[QueueServer, AsyncioServer])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    running = Running(request.param)
    yield running
    running.close()


@pytest.mark.parametrize("message", [b"", b"x", bytes(LIMIT)])
def test_a_message_comes_and_goes_as_it_is(running: Running, message: bytes) -> None:
    assert running.unary("Echo", message) == message


def test_an_answer_may_come_later(running: Running) -> None:
    call = running.channel.unary_unary("/t.T/Keep").future(b"x", timeout=30)
    running.soon(running.service.calls.get(timeout=30).answer, b"late")
    assert call.result(30) == b"late"
    assert running.service.gone.get(timeout=30) == "done"


def test_many_calls_at_once_get_each_its_own_answer(running: Running) -> None:
    echo = running.channel.unary_unary("/t.T/Echo")
    calls = [echo.future(str(number).encode(), timeout=30) for number in range(500)]
    assert [int(call.result(30)) for call in calls] == list(range(500))


def test_a_call_ends_once_with_status_details_and_trailers(running: Running) -> None:
    error = running.error("Refuse")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "full: 100 %, später"
    assert ("wait", "5") in error.trailing_metadata()


def test_metadata_is_there(running: Running) -> None:
    assert running.unary("Metadata", metadata=(("asked", "yes"),)) == b"yes"


def test_the_deadline_is_known_and_its_absence_too(running: Running) -> None:
    assert 0 < float(running.unary("Left")) < 31  # gRPC rounds what it sends
    assert running.channel.unary_unary("/t.T/Left")(b"") == b"None"


def test_a_caller_that_cancels_is_told_of_once(running: Running) -> None:
    call = running.channel.unary_unary("/t.T/Keep").future(b"x", timeout=30)
    kept = running.service.calls.get(timeout=30)
    call.cancel()
    assert {running.service.gone.get(timeout=30) for _ in range(2)} == {"cancelled", "done"}
    assert kept.is_over
    running.soon(kept.answer, b"nobody hears this")
    running.soon(kept.end)
    running.soon(kept.receive, running.service.gone.put)
    assert running.unary("Echo") == b"x"
    assert running.service.gone.empty()


def test_a_deadline_that_passes_cancels(running: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        # On a busy machine less may pass before the server knows of the call.
        running.channel.unary_unary("/t.T/Keep")(b"x", timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert {running.service.gone.get(timeout=30) for _ in range(2)} == {"cancelled", "done"}


def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    assert running.error("Nothing").code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_over_the_limit_is_refused_by_name_and_the_next_is_served(running: Running) -> None:
    error = running.error("Echo", bytes(LIMIT + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(LIMIT) in error.details()
    assert running.unary("Echo") == b"x"


@pytest.mark.parametrize("name", ["Raise", "RaiseAtOnce"])
def test_a_service_that_raises_fails_that_call_alone(
    running: Running, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert running.error(name).code() is grpc.StatusCode.UNKNOWN
    assert "ZeroDivisionError" in caplog.text
    assert running.unary("Echo") == b"x"


def test_a_call_whose_service_raises_is_done_once(running: Running) -> None:
    assert running.error("KeepAndRaise").code() is grpc.StatusCode.UNKNOWN
    assert running.service.gone.get(timeout=30) == "done"
    assert running.unary("Echo") == b"x"
    assert running.service.gone.empty()


@pytest.mark.parametrize("running", [QueueServer], indirect=True)  # grpc.aio lets the second one wait
def test_who_receives_twice_at_once_is_told_and_the_call_still_gets_its_end(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    assert running.error("ReceiveTwice").code() is grpc.StatusCode.UNKNOWN
    assert "another of its kind is under way" in caplog.text
    assert running.service.gone.get(timeout=30) == "done"


def test_one_message_may_be_answered_by_many(running: Running) -> None:
    answers = running.channel.unary_stream("/t.T/Count")(b"10000", timeout=30)
    assert [int(answer) for answer in answers] == list(range(9999, -1, -1))


def test_an_end_sends_what_was_kept_back_for_more(running: Running) -> None:
    assert list(running.channel.unary_stream("/t.T/PromiseMore")(b"x", timeout=30)) == [b"x"] * 3


def test_one_message_may_be_answered_by_none(running: Running) -> None:
    assert list(running.channel.unary_stream("/t.T/Count")(b"0", timeout=30)) == []


def test_a_stream_goes_both_ways_until_the_client_has_said_all(running: Running) -> None:
    messages = [str(number).encode() for number in range(300)]
    assert list(running.channel.stream_stream("/t.T/Stream")(iter(messages), timeout=30)) == messages
    assert list(running.channel.stream_stream("/t.T/Stream")(iter(()), timeout=30)) == []


def test_a_stream_that_breaks_is_told_of(running: Running) -> None:
    more: SimpleQueue[bytes | None] = SimpleQueue()
    stream = running.channel.stream_stream("/t.T/Stream")(iter(more.get, None), timeout=30)
    more.put(b"x")
    assert next(stream) == b"x"
    stream.cancel()
    assert running.service.gone.get(timeout=30) in ("cancelled", "said all")  # whichever gRPC says first
    more.put(None)


def test_a_client_that_does_not_read_lets_the_sending_wait(running: Running) -> None:
    stream = running.channel.stream_stream("/t.T/Stream")(iter([bytes(LIMIT)] * 2000), timeout=60)
    next(stream)
    before = -1
    while before != running.service.received:  # until the transport has taken what it takes
        before = running.service.received
        for _ in range(50):
            running.unary("Echo")
    assert before < 1000
    assert len(list(stream)) == 1999


@pytest.mark.parametrize("running", [QueueServer], indirect=True)  # grpc.aio lets such a call wait for its message
def test_a_call_without_a_message_is_refused(running: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        running.channel.stream_unary("/t.T/Echo")(iter(()), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "exactly one" in caught.value.details()


def test_a_stop_lets_calls_end_within_its_time_and_refuses_new_ones(running: Running) -> None:
    call = running.channel.unary_unary("/t.T/Keep").future(b"x", timeout=30)
    kept = running.service.calls.get(timeout=30)
    stopped = threading.Thread(target=running.stop, args=(30,))
    stopped.start()
    running.soon(kept.answer, b"in time")
    assert call.result(30) == b"in time"
    stopped.join(30)
    assert not stopped.is_alive()
    assert running.error("Echo").code() is grpc.StatusCode.UNAVAILABLE


def test_a_stop_cancels_what_is_left(running: Running) -> None:
    call = running.channel.unary_unary("/t.T/Keep").future(b"x", timeout=30)
    running.service.calls.get(timeout=30)
    running.stop(0)
    assert call.exception(30) is not None
    assert running.service.gone.get(timeout=30) == "cancelled"


def test_what_a_service_says_to_a_call_after_the_stop_does_nothing(running: Running) -> None:
    call = running.channel.unary_unary("/t.T/Keep").future(b"x", timeout=30)
    kept = running.service.calls.get(timeout=30)
    running.stop(0)
    assert call.exception(30) is not None
    assert {running.service.gone.get(timeout=30) for _ in range(2)} == {"cancelled", "done"}

    async def say() -> None:
        kept.receive(running.service.gone.put)
        kept.send(b"x", running.service.gone.put)
        kept.answer(b"x")
        kept.end()

    running.on_loop(say())
    assert running.service.gone.empty()


def test_a_second_stop_changes_nothing(running: Running) -> None:
    running.stop()
    running.stop()


def test_a_port_in_use_cannot_be_listened_on(running: Running) -> None:
    async def again() -> None:
        server = type(running._server)({}, OPTIONS)
        try:
            with pytest.raises(RuntimeError):
                server.listen(f"127.0.0.1:{running.port}", None)
        finally:
            await server.stop(0)

    running.on_loop(again())


def test_metadata_that_is_no_text_is_no_stack_trace(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    call = half_http2.begun_call("/t.T/Echo", 1, b"x", {"evil": b"\xff\xfe"}) + half_http2.end_of_call()
    with half_http2.connection(f"127.0.0.1:{running.port}") as connection:
        connection.sendall(call)
        while b"grpc-status" not in (data := connection.recv(1 << 16)):
            assert data
    assert caplog.records == []


@pytest.mark.parametrize("running", [AsyncioServer], indirect=True)
def test_callers_who_are_gone_when_their_answer_is_sent_are_no_stack_trace(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC's record of such an answer, which no test can bring about at will; any other one stays."""
    logger = logging.getLogger("grpc._cython.cygrpc")
    logger.error("ExecuteBatchError raised in core by servicer method [/t.T/Echo]")
    logger.error("something else")
    assert [record.getMessage() for record in caplog.records if record.name == logger.name] == ["something else"]
