"""The door for inference calls: lets them in until it is closed, and knows when the last of them has its answer.

A call counts from when its first message has come whole until gRPC has sent its end, or the caller is gone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic

from trtserve_server.errors import ServerStopping
from trtserve_server.transport.call import Call

_MOST_PERIODS = 10


class Intake:
    """`inside` counts the calls that were let in and have not ended; `closed` says that no more are."""

    def __init__(self) -> None:
        self.inside = 0
        self._latest = 0.0
        self.closed = False
        self._empty = asyncio.Event()

    def enter(self, call: Call) -> None:
        """Lets a call in. Raises ServerStopping once closed."""
        self._latest = monotonic()
        if self.closed:
            raise ServerStopping("the server is stopping; send elsewhere")
        self.inside += 1
        # Not when its handler returns: an answer may still be on its way to a slow reader.
        call.add_done_callback(self._ended)

    def close(self) -> None:
        """Lets no call in from now on."""
        self.closed = True

    async def empty(self, timeout_s: float) -> bool:
        """Waits until the last call has ended, for at most so long; whether it has. Only after `close`."""
        if self.inside:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout_s)
        return not self.inside

    async def quiet(self, seconds: float) -> None:
        """Waits until no call has come for so long: callers have heard of the refusals. At most ten times as long."""
        for _ in range(_MOST_PERIODS):
            left_s = self._latest + seconds - monotonic()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)

    def _ended(self, call: Call) -> None:
        self.inside -= 1
        if not self.inside and self.closed:
            self._empty.set()
