"""The port through which the core is woken and woken later, and its asyncio form: the only bridge between threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

Cancel = Callable[[], None]


class Reactor(Protocol):
    """One thread's time and wake-ups. All of the core runs on that thread; only `post` may be called from others."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        ...

    def soon(self, call: Callable[[], None], /) -> object:
        """Calls on the reactor's thread once everything that is already pending has run."""
        ...

    def at(self, time: float, call: Callable[[], None]) -> Cancel:
        """Calls at `time`; what it returns takes that back."""
        ...

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """Calls on the reactor's thread, from any thread. Does nothing when the reactor has ended."""
        ...


class AsyncioReactor:
    """The running asyncio loop as a Reactor."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = monotonic  # not the loop's clock: uvloop's ticks in milliseconds
        self.soon = self._loop.call_soon

    def at(self, time: float, call: Callable[[], None]) -> Cancel:
        """See Reactor."""
        return self._loop.call_later(max(0.0, time - monotonic()), call).cancel

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """See Reactor."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            # The loop is closed: the server was forced to stop while this thread was still at work.
            if not self._loop.is_closed():
                raise
