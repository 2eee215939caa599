"""A gRPC server on the completion queue of gRPC's C core.

Several times as fast as grpc.aio: there is no coroutine and no future for a call, and its events are fetched on the
loop's own thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc

from trtserve_server.transport import core
from trtserve_server.transport.call import Handlers, Streaming, Unary
from trtserve_server.transport.callers_faults import leave_out_callers_faults
from trtserve_server.transport.pump import Event, Pump
from trtserve_server.transport.queue_call import QueueCall

log = logging.getLogger(__name__)

_AHEAD = 16
"""Calls that gRPC may hand over before it is asked again."""

_CANCELLED_S = 5.0
"""How long the end may take once every call is cancelled."""


class QueueServer:
    """See GrpcServer. `options` are gRPC's channel arguments."""

    def __init__(self, handlers: Handlers, options: Sequence[tuple[str, Any]]) -> None:
        self._beginnings = {path.encode(): _beginning(handler) for path, handler in handlers.items()}
        self._queue = core.CompletionQueue()
        self._server = core.Server(list(options), False)
        self._server.register_completion_queue(self._queue)
        self._pump: Pump | None = None
        self._shut_down: asyncio.Future[None] | None = None
        leave_out_callers_faults()

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """See GrpcServer."""
        secure: Any = credentials  # what the core wants of them is where grpc.server finds it
        port: int = self._server.add_http2_port(address.encode(), *([secure._credentials] if secure else []))
        if not port:
            raise RuntimeError(f"gRPC cannot bind {address}")
        return port

    async def start(self) -> None:
        """See GrpcServer."""
        self._server.start()
        # Tags are methods of calls, or of this server.
        self._pump = Pump(self._queue, lambda tag: _fail(tag.__self__), asyncio.get_running_loop())
        for _ in range(_AHEAD):
            self._ask()
        self._pump.start()

    async def stop(self, grace_s: float) -> None:
        """See GrpcServer. What is not cancelled within some seconds is left to the end of the process."""
        if self._pump is None or self._pump.ended.done():
            return
        if self._shut_down is None:
            self._shut_down = asyncio.get_running_loop().create_future()
            self._server.shutdown(self._queue, self._ended)
        if not await _within(self._shut_down, grace_s):
            self._server.cancel_all_calls()
            if not await _within(self._shut_down, _CANCELLED_S):
                log.warning("gRPC still holds calls %g s after all were cancelled", _CANCELLED_S)
                return
        self._queue.shutdown()
        await self._pump.ended
        self._server.destroy()  # grpcio frees it by this alone

    def _ask(self) -> None:
        self._server.request_call(self._queue, self._queue, self._came)

    def _ended(self, _: Event) -> None:
        assert self._shut_down is not None
        self._shut_down.set_result(None)

    def _came(self, event: Event) -> None:
        if self._shut_down is None:
            self._ask()
        if not event.success:
            return  # the server is shut down, and no more will come
        call = QueueCall(event)
        try:
            self._beginnings.get(event.call_details.method, _unknown)(call)
        except Exception:
            _fail(call)


def _fail(call: object) -> None:
    """What a service raises nevertheless ends its call, and nothing else. To be called while that is handled."""
    log.exception("a call was not handled to its end")
    if isinstance(call, QueueCall):
        call.end(grpc.StatusCode.UNKNOWN, "the server failed to handle the call; its log has the details")


def _beginning(handler: Unary | Streaming) -> Callable[[QueueCall], None]:
    begin: Any = handler.begin
    if isinstance(handler, Streaming):

        def stream(call: QueueCall) -> None:
            call.watch()
            begin(call)

        return stream

    def receive(call: QueueCall) -> None:
        call.receive(partial(_received, call, begin))

    return receive


def _received(call: QueueCall, begin: Callable[[bytes, QueueCall], None], message: bytes | None) -> None:
    if message is None:
        call.end(grpc.StatusCode.UNIMPLEMENTED, "the call has no message; wanted is exactly one")
    else:
        try:
            begin(message, call)
        finally:  # where it raises, too: without an operation under way the call would count as done before its end
            if not call.is_over:
                call.watch()


def _unknown(call: QueueCall) -> None:
    call.end(grpc.StatusCode.UNIMPLEMENTED, "the method is not known here")


async def _within(future: asyncio.Future[None], seconds: float) -> bool:
    """Whether it is done within the time. It is not cancelled by that, nor where who waits gives up."""
    done, _ = await asyncio.wait([future], timeout=seconds)
    return bool(done)
