"""Builds gRPC handlers from a table of calls and plain functions, with every exception turned into a status.

Messages arrive and leave as bytes, so that the hot ones can bypass protobuf and a garbled one gets a clear answer.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from trtserve_protos import wire
from trtserve_protos.methods import Method
from trtserve_protos.wishes import METADATA_PREFIX
from trtserve_server.errors import NotSupported
from trtserve_server.rpc.status import status_of, trailers_of

Context = Any
"""A grpc.aio.ServicerContext[bytes, bytes]; its stubs know no context of raw bytes."""

BytesCall = Callable[[bytes, Context], Awaitable[bytes]]
MessageCall = Callable[[Any, Context], Awaitable[Any]]
StreamCall = Callable[[Context], Awaitable[None]]
ServerStreamCall = Callable[[bytes, Context], Awaitable[None]]


def generic_handler(
    service: str,
    methods: Mapping[str, Method],
    *,
    messages: Mapping[str, MessageCall],
    raw: Mapping[str, BytesCall] | None = None,
    streams: Mapping[str, StreamCall] | None = None,
    server_streams: Mapping[str, ServerStreamCall] | None = None,
    asking: Mapping[str, BytesCall] | None = None,
) -> grpc.GenericRpcHandler:
    """One service. A call that is in `methods` and in no mapping is answered with UNIMPLEMENTED and a reason.

    `messages` take and give protobuf messages, `raw` bytes; both kinds of streams write bytes on the context.
    `asking` are the calls of `raw` whose metadata holds wishes of ours.
    """
    raw, streams, server_streams = raw or {}, streams or {}, server_streams or {}
    handlers: dict[str, Any] = {}
    for name, method in methods.items():
        if name in streams:
            handlers[name] = grpc.stream_stream_rpc_method_handler(_bidirectional(streams[name]))
        elif name in server_streams:
            handlers[name] = grpc.unary_stream_rpc_method_handler(_server_side(server_streams[name]))
        elif name in raw:
            handlers[name] = grpc.unary_unary_rpc_method_handler(_translated(raw[name]))
        elif name in messages:
            handlers[name] = grpc.unary_unary_rpc_method_handler(_translated(_parsed(method, messages[name])))
        else:
            handlers[name] = grpc.unary_unary_rpc_method_handler(_translated(_not_supported(method)))
    wishing: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(_translated(call)) for name, call in (asking or {}).items()
    }
    return _Service(service, handlers, {**handlers, **wishing})


class _Service(grpc.GenericRpcHandler):
    """Finds the handler of a call. gRPC hands over the metadata here anyway; a call that read it would pay again."""

    def __init__(self, service: str, handlers: Mapping[str, Any], asking: Mapping[str, Any]) -> None:
        self._handlers = {f"/{service}/{name}": handler for name, handler in handlers.items()}
        self._asking = {f"/{service}/{name}": handler for name, handler in asking.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler; None where the call is not of this service."""
        for key, _ in handler_call_details.invocation_metadata:
            if key.startswith(METADATA_PREFIX):
                return self._asking.get(handler_call_details.method)
        return self._handlers.get(handler_call_details.method)


def deadline_of(context: Context, now: float) -> float:
    """When the caller wants the answer, on the monotonic clock; infinity where it may take for ever.

    For a call that lives long, to be asked once: what gRPC says is left follows the wall clock, which may be set.
    """
    left_s = context.time_remaining()
    return math.inf if left_s is None else now + left_s


def _parsed(method: Method, call: MessageCall) -> BytesCall:
    async def handle(message: bytes, context: Context) -> bytes:
        response = await call(wire.parse(method.request_class, message), context)
        serialized: bytes = response.SerializeToString()
        return serialized

    return handle


def _translated(call: BytesCall) -> BytesCall:
    async def handle(message: bytes, context: Context) -> bytes:
        try:
            return await call(message, context)
        except Exception as error:
            await _abort(context, error)
            raise AssertionError("abort raises") from error

    return handle


def _bidirectional(call: StreamCall) -> Any:
    async def handle(_: AsyncIterator[bytes], context: Context) -> None:
        await _guarded(call(context), context)

    return handle


def _server_side(call: ServerStreamCall) -> Any:
    async def handle(message: bytes, context: Context) -> None:
        await _guarded(call(message, context), context)

    return handle


async def _guarded(running: Awaitable[None], context: Context) -> None:
    try:
        await running
    except (grpc.aio.AbortError, grpc.aio.InternalError):
        raise  # the call is over: ended by us, or an answer could not be written because the caller is gone
    except Exception as error:
        await _abort(context, error)


async def _abort(context: Context, error: Exception) -> None:
    code, details = status_of(error)
    await context.abort(code, details, trailers_of(error))


def _not_supported(method: Method) -> BytesCall:
    async def handle(message: bytes, context: Context) -> bytes:
        raise NotSupported(f"{method.name} is not offered by this version of trtserve")

    return handle
