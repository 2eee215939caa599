"""Builds a service's handlers from a table of its calls and plain functions, with every exception turned into a status.

Messages arrive and leave as bytes, so that the hot ones can bypass protobuf and a garbled one gets a clear answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from trtserve_protos import wire
from trtserve_protos.methods import Method
from trtserve_server.errors import NotSupported
from trtserve_server.rpc.status import status_of, trailers_of
from trtserve_server.transport.call import Call, Streaming, Unary

MessageCall = Callable[[Any, Call], Awaitable[Any]]
BytesCall = Callable[[bytes, Call], None]
StreamCall = Callable[[Call], None]


def handlers_of(
    methods: Mapping[str, Method],
    *,
    messages: Mapping[str, MessageCall],
    raw: Mapping[str, BytesCall] | None = None,
    streams: Mapping[str, StreamCall] | None = None,
) -> dict[str, Unary | Streaming]:
    """One service. A call that is in `methods` and in no mapping is answered with UNIMPLEMENTED and a reason.

    `messages` take and give protobuf messages, once awaited; `raw` take a message of bytes, and `streams` receive what
    they want, and both answer the call whenever they can.
    """
    raw, streams = raw or {}, streams or {}
    handlers: dict[str, Unary | Streaming] = {}
    for name, method in methods.items():
        if name in streams:
            handlers[method.path] = Streaming(_stream(streams[name]))
        elif name in raw:
            handlers[method.path] = Unary(_refusing(raw[name]))
        elif name in messages:
            handlers[method.path] = Unary(_awaited(method, messages[name]))
        else:
            handlers[method.path] = Unary(_not_supported(method))
    return handlers


def refuse(call: Call, error: Exception) -> None:
    """Ends a call with the status of an error."""
    code, details = status_of(error)
    call.end(code, details, trailers_of(error))


def finish(call: Call, error: Exception | None) -> None:
    """Ends a call of which everything is sent, with the status of an error where there was one."""
    if error is None:
        call.end()
    else:
        refuse(call, error)


def deadline_of(call: Call, now: float) -> float:
    """When the caller wants the answer, on the monotonic clock; infinity where it may take for ever.

    For a call that lives long, to be asked once: what gRPC says is left follows the wall clock, which may be set.
    """
    left_s = call.time_remaining()
    return math.inf if left_s is None else now + left_s


def _refusing(function: BytesCall) -> BytesCall:
    def begin(message: bytes, call: Call) -> None:
        try:
            function(message, call)
        except Exception as error:
            refuse(call, error)

    return begin


def _stream(function: StreamCall) -> StreamCall:
    def begin(call: Call) -> None:
        try:
            function(call)
        except Exception as error:
            refuse(call, error)

    return begin


def _awaited(method: Method, function: MessageCall) -> BytesCall:
    async def answer(message: bytes, call: Call) -> None:
        try:
            response = await function(wire.parse(method.request_class, message), call)
            call.answer(response.SerializeToString())
        except Exception as error:
            refuse(call, error)

    def begin(message: bytes, call: Call) -> None:
        task = asyncio.get_running_loop().create_task(answer(message, call))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        call.on_cancel = task.cancel

    return begin


_tasks: set[asyncio.Task[None]] = set()
"""Holds them: the loop itself does not."""


def _not_supported(method: Method) -> BytesCall:
    def begin(message: bytes, call: Call) -> None:
        refuse(call, NotSupported(f"{method.name} is not offered by this version of trtserve"))

    return begin
