"""A caller of a call with many messages, as services see it: sends what it has, reads when told to.

It stands in for a Call. What a transport would buffer it does not, so that counts are exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import grpc

from trtserve_server.transport.call import Metadata


class SlowCaller:
    """Sends `messages` and half-closes; takes `reads` answers, and one more for each `read`.

    `more` is what was said of each answer, whether another one follows at once.
    """

    def __init__(self, messages: Iterable[bytes] = (), *, reads: int = 0, metadata: Metadata = ()):
        self._messages = iter(messages)
        self._reads = reads
        self._unread: tuple[bytes, Callable[[bool], None]] | None = None
        self.metadata = metadata
        self.on_cancel: Callable[[], object] | None = None
        self.sent = 0
        self.taken: list[bytes] = []
        self.more: list[bool] = []
        self.status: tuple[grpc.StatusCode, str] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the call has its status."""
        return self.status is not None

    def read(self, count: int = 1) -> None:
        """Reads as many more answers."""
        self._reads += count
        self._take()

    def leave(self) -> None:
        """Cancels the call."""
        assert self.status is None
        self.status = grpc.StatusCode.CANCELLED, ""
        assert self.on_cancel is not None
        self.on_cancel()

    def receive(self, on_message: Callable[[bytes | None], None]) -> None:
        """Gives the next message, None after the last."""
        message = next(self._messages, None)
        if message is not None:
            self.sent += 1
        asyncio.get_running_loop().call_soon(on_message, message)

    def send(self, message: bytes, on_sent: Callable[[bool], None], *, more: bool = False) -> None:
        """Takes an answer once it is read."""
        assert self._unread is None
        self.more.append(more)
        self._unread = message, on_sent
        self._take()

    def answer(self, message: bytes) -> None:
        """Takes the one answer."""
        self.taken.append(message)
        self.end()

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "", trailers: Metadata = ()) -> None:
        """Takes the status, of which the first counts."""
        self.status = self.status or (code, details)

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        """Nothing is ever under way."""

    def time_remaining(self) -> None:
        """No deadline."""

    def _take(self) -> None:
        if self._reads and self._unread is not None:
            (message, on_sent), self._unread = self._unread, None
            self._reads -= 1
            self.taken.append(message)
            asyncio.get_running_loop().call_soon(on_sent, True)
