"""The door for inference calls: takes them until it is closed, and knows when the last one that it took has ended."""

from __future__ import annotations

import asyncio

from trtserve_server.errors import ServerStopping


class Intake:
    """A context for each call; raises ServerStopping at its entry once closed.

    `inside` counts the calls that are in, `refused` those that came after the door was closed.
    """

    def __init__(self) -> None:
        self.inside = 0
        self.refused = 0
        self._closed = False
        self._empty = asyncio.Event()

    def __enter__(self) -> None:
        if self._closed:
            self.refused += 1
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
