"""The answers of one call that gives many: written one by one as they complete or in order, and never too many at once.

From its arrival until its answer is written a request holds a place of the window. A caller that does not read its
answers lets the writing wait, so places run out and nothing more is taken from it: what is held for it is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from trtserve_server.rpc.settle import settle

Lane = deque["Place"]
"""Places whose answers go out in the order of their entries."""


class Place:
    """Holds a place of the window for one request; in a lane it also holds its answer until those before are there."""

    __slots__ = ("answer", "lane")

    def __init__(self, lane: Lane | None) -> None:
        self.lane = lane
        self.answer: bytes | Exception | None = None
        if lane is not None:
            lane.append(self)


class Answers:
    """The window of one call. `held` counts the places that are taken."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]], window: int) -> None:
        self._write = write
        self._window = window
        self._ready: deque[bytes | Exception] = deque()
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._wanted: asyncio.Future[None] | None = None  # who waits for a place
        self._awaited: asyncio.Future[None] | None = None  # the writer, which waits for an answer
        self.held = 0
        self.on_last: Callable[[], None] = _nothing
        """Called before the last answer that is there is written: more would be welcome."""

    @property
    def more(self) -> bool:
        """Whether answers wait behind the one that is being written."""
        return bool(self._ready)

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return self.held >= self._window

    async def room(self) -> None:
        """Waits until a place is free. One task at a time may wait."""
        while self.full:
            self._wanted = self._loop.create_future()
            await self._wanted

    def take(self, lane: Lane | None = None) -> Place:
        """Takes a place, which one `put` gives back."""
        self.held += 1
        return Place(lane)

    def put(self, place: Place, answer: bytes | Exception) -> None:
        """The answer for a place: bytes to write, or what ends the call."""
        lane = place.lane
        if lane is None:
            self._ready.append(answer)
        else:
            place.answer = answer
            while lane and (due := lane[0].answer) is not None:
                self._ready.append(due)
                lane.popleft()
        self._wake()

    def close(self) -> None:
        """Says that no more places will be taken."""
        self._open = False
        self._wake()

    def abandon(self) -> None:
        """Forgets what is not written, for the call is over: at once, not when Python next looks for cycles."""
        self._ready.clear()
        self.on_last = _nothing

    async def write_all(self) -> None:
        """Writes until closed and nothing is held any more. Raises the first answer that is an exception."""
        ready, write = self._ready, self._write
        while self._open or self.held:
            while ready:
                answer = ready.popleft()
                if isinstance(answer, Exception):
                    raise answer
                if not ready:
                    self.on_last()
                await write(answer)
                self.held -= 1
                if self._wanted is not None:
                    settle(self._wanted, None)
            if self._open or self.held:
                self._awaited = self._loop.create_future()
                await self._awaited
                self._awaited = None

    def _wake(self) -> None:
        if self._awaited is not None:
            settle(self._awaited, None)


def _nothing() -> None:
    pass
