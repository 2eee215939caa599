"""The answers of an asynchronous stream, and the status that it really ended with.

A write that fails because the server has just ended the call makes grpc.aio replace the server's status by INTERNAL
"Internal error from Core": https://github.com/grpc/grpc/issues/36066. Here the server's own is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

T = TypeVar("T")

_REPLACEMENT = "Internal error from Core"
# The server's status is on its way when the write fails; where the failure was grpc.aio's own there is none.
_WAIT_S = 1.0


class Answers:
    """The messages of `call` one by one, and its first status that is not grpc.aio's replacement."""

    def __init__(self, call: Any) -> None:
        # Not call.read(), which leaves answers unread once a write has failed.
        self._messages: AsyncIterator[bytes] = aiter(call)
        self._found: asyncio.Future[tuple[grpc.StatusCode, str]] = asyncio.get_running_loop().create_future()
        call.add_done_callback(self._note)

    async def next(self) -> bytes | None:
        """The next message, None after the last. Raises RpcError where the call ended with another status than OK."""
        try:
            return await anext(self._messages, None)
        except grpc.RpcError as error:
            if failure := await self._instead_of(error):
                raise failure from None
            return None

    async def _instead_of(self, error: grpc.RpcError) -> grpc.RpcError | None:
        """What `error` should have been: itself, the server's status, or None where the server's was OK."""
        if not _is_replacement(error.code(), error.details()):
            return error
        try:
            code, details = await asyncio.wait_for(asyncio.shield(self._found), _WAIT_S)
        except TimeoutError:
            return error
        if code is grpc.StatusCode.OK:
            return None
        return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)

    def _note(self, call: Any) -> None:
        # To be read now: the next event of the loop may bring the replacement.
        code, details = _result_of(call.code()), _result_of(call.details())
        if not self._found.done() and not _is_replacement(code, details):
            self._found.set_result((code, details))


def _is_replacement(code: grpc.StatusCode, details: str | None) -> bool:
    return code is grpc.StatusCode.INTERNAL and (details or "").startswith(_REPLACEMENT)


def _result_of(finished: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        finished.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finished.close()
    raise RuntimeError("the status of a call that is done was not there")
