"""A caller of a call with many messages, as the server's side of gRPC shows it: sends what it has, reads when told to.

It stands in for a ServicerContext. What the transport would buffer it does not, so that counts are exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc.aio


class SlowCaller:
    """Sends `messages` and half-closes; takes `reads` answers, and one more for each `read`."""

    def __init__(self, messages: Iterable[bytes] = (), *, reads: int = 0, metadata: Iterable[tuple[str, str]] = ()):
        self._messages = iter(messages)
        self._reads = asyncio.Semaphore(reads)
        self._metadata = tuple(metadata)
        self.sent = 0
        self.taken: list[bytes] = []

    def read(self, count: int = 1) -> None:
        """Reads as many more answers."""
        for _ in range(count):
            self._reads.release()

    async def write(self, answer: bytes) -> None:
        """Takes an answer once it is read."""
        await self._reads.acquire()
        self.taken.append(answer)

    def as_context(self) -> Context:
        """The call as a handler gets it."""
        return Context(self)

    def next_message(self) -> object:
        """The next message, EOF after the last."""
        message = next(self._messages, None)
        if message is None:
            return grpc.aio.EOF
        self.sent += 1
        return message

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What the call began with."""
        return self._metadata


class Context:
    """The part of grpc.aio.ServicerContext that streams use."""

    def __init__(self, caller: SlowCaller) -> None:
        self._caller = caller
        self.write = caller.write

    async def read(self) -> object:
        """The caller's next message."""
        return self._caller.next_message()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The caller's metadata."""
        return self._caller.metadata()

    def time_remaining(self) -> None:
        """No deadline."""
