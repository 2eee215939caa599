"""The memory that requests in flight may hold, over all models of the server."""

from __future__ import annotations

from trtserve_server.errors import ServerOverloaded


class ByteBudget:
    """Counts bytes in and out. One request is always let in, even if it alone is above the limit."""

    __slots__ = ("_limit", "held")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Counts in a request of `size` bytes. Raises ServerOverloaded."""
        if self.held and self.held + size > self._limit:
            raise ServerOverloaded(
                f"the requests in flight hold {self.held} bytes; {size} more would pass"
                f" max_inflight_bytes = {self._limit}; send again later"
            )
        self.held += size

    def give(self, size: int) -> None:
        """Counts out what was counted in."""
        self.held -= size
