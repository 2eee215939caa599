"""The same calls over grpc.aio's public API alone, for a grpcio that does not show its completion queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from trtserve_server.transport.call import Handlers, Metadata, Streaming, Unary
from trtserve_server.transport.callers_faults import leave_out_callers_faults


class AsyncioServer:
    """See GrpcServer. `options` are gRPC's channel arguments."""

    def __init__(self, handlers: Handlers, options: Sequence[tuple[str, Any]]) -> None:
        self._server = grpc.aio.server(options=list(options))
        self._server.add_generic_rpc_handlers((_Services(handlers),))
        self._is_stopped = False
        leave_out_callers_faults()

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """See GrpcServer."""
        if credentials:
            return self._server.add_secure_port(address, credentials)
        return self._server.add_insecure_port(address)

    async def start(self) -> None:
        """See GrpcServer."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """See GrpcServer. Once only: gRPC crashes where one stop outlives another."""
        if not self._is_stopped:
            self._is_stopped = True
            await self._server.stop(grace_s)


class _Services(grpc.GenericRpcHandler):
    def __init__(self, handlers: Handlers) -> None:
        self._handlers = {path: _as_grpc(handler) for path, handler in handlers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


def _as_grpc(handler: Unary | Streaming) -> Any:
    """The handler as a coroutine. On the wire a call of one message each way is one of many that happen to be one."""
    if isinstance(handler, Streaming):

        async def stream(_: AsyncIterator[bytes], context: Any) -> None:
            call = AsyncioCall(context)
            handler.begin(call)
            await call.ending()

        return grpc.stream_stream_rpc_method_handler(stream)

    async def unary(message: bytes, context: Any) -> None:
        call = AsyncioCall(context)
        handler.begin(message, call)
        await call.ending()

    return grpc.unary_stream_rpc_method_handler(unary)


class AsyncioCall:
    """See Call. `context` is grpc.aio's."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._end: asyncio.Future[tuple[bytes | None, grpc.StatusCode, str, Metadata]]
        self._end = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_cancel: Callable[[], object] | None = None
        self.metadata: Metadata = context.invocation_metadata() or ()
        self.time_remaining = context.time_remaining
        self.add_done_callback = context.add_done_callback

    @property
    def is_over(self) -> bool:
        """See Call."""
        return self._end.done()

    def receive(self, on_message: Callable[[bytes | None], None]) -> None:
        """See Call."""

        async def read() -> None:
            message = await _or(None, self._context.read())
            on_message(None if message is grpc.aio.EOF else message)

        if not self.is_over:
            self._run(read())

    def send(self, message: bytes, on_sent: Callable[[bool], None], *, more: bool = False) -> None:
        """See Call. `more` changes nothing here: each message is written by itself."""

        async def write() -> None:
            on_sent(await _or(False, _true(self._context.write(message))))

        if not self.is_over:
            self._run(write())

    def answer(self, message: bytes) -> None:
        """See Call."""
        if not self.is_over:
            self._end.set_result((message, grpc.StatusCode.OK, "", ()))

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "", trailers: Metadata = ()) -> None:
        """See Call."""
        if not self.is_over:
            self._end.set_result((None, code, details, trailers))

    async def ending(self) -> None:
        """Waits until the call has been given its end, and sends it."""
        try:
            message, code, details, trailers = await self._end
        except asyncio.CancelledError:
            if self.on_cancel is not None:
                self.on_cancel()
            raise
        finally:
            for task in self._tasks:
                task.cancel()
        if message is not None:
            await _or(None, self._context.write(message))
        if code is not grpc.StatusCode.OK:
            await self._context.abort(code, details, tuple(trailers))

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _true(done: Awaitable[Any]) -> bool:
    await done
    return True


async def _or(otherwise: Any, done: Awaitable[Any]) -> Any:
    """What it gives; `otherwise` where the caller is gone."""
    try:
        return await done
    except (grpc.aio.BaseError, grpc.aio.UsageError):
        return otherwise
