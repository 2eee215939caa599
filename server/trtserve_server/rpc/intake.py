"""The door for inference calls: takes them until it is closed, and knows when the last one that it took has ended."""

from __future__ import annotations

import asyncio
from time import monotonic

from trtserve_server.errors import ServerStopping

_MOST_PERIODS = 10


class Intake:
    """A context for each call; raises ServerStopping at its entry once closed. `inside` counts the calls in it."""

    def __init__(self) -> None:
        self.inside = 0
        self._latest = 0.0
        self._closed = False
        self._empty = asyncio.Event()

    def __enter__(self) -> None:
        self._latest = monotonic()
        if self._closed:
            raise ServerStopping("the server is stopping; send elsewhere")
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        self.inside -= 1
        if self._closed and not self.inside:
            self._empty.set()

    def close(self) -> None:
        """Lets no call in from now on."""
        self._closed = True
        if not self.inside:
            self._empty.set()

    async def empty(self) -> None:
        """Waits until the last call is out; only after `close`."""
        await self._empty.wait()

    async def quiet(self, seconds: float) -> None:
        """Waits until no call has come for so long: callers have heard of the refusals. At most ten times as long."""
        for _ in range(_MOST_PERIODS):
            left_s = self._latest + seconds - monotonic()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)
