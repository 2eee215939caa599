"""The memory that requests in flight may hold, over all models of the server."""

from __future__ import annotations

from trtserve_server.errors import ServerOverloaded

_MEMORY_S = 10.0
"""How far back the pace goes at which memory is given back; what was before counts half."""


class ByteBudget:
    """Counts bytes in and out. One request is always let in, even if it alone is above the limit.

    So is one of no bytes: a piece of what is counted already.
    """

    __slots__ = ("_given", "_limit", "_since", "held")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._since = 0.0
        self._given = 0.0
        self.held = 0

    def take(self, size: int, now: float) -> None:
        """Counts in a request of `size` bytes. Raises ServerOverloaded."""
        if size and self.held and self.held + size > self._limit:
            raise self._overloaded(size, now)
        if not self.held:
            self._since, self._given = now, 0.0
        self.held += size

    def give(self, size: int) -> None:
        """Counts out what was counted in."""
        self.held -= size
        self._given += size

    def _overloaded(self, size: int, now: float) -> ServerOverloaded:
        error = ServerOverloaded(
            f"the requests in flight hold {self.held} bytes; {size} more would pass"
            f" max_inflight_bytes = {self._limit}; send again later"
        )
        error.retry_after_s = self._half_s(now)
        return error

    def _half_s(self, now: float) -> float:
        """In about how many seconds half of what is held will have been given back, at the pace of late."""
        passed_s = now - self._since
        if passed_s > _MEMORY_S:
            self._given *= _MEMORY_S / 2 / passed_s
            self._since = now - _MEMORY_S / 2
            passed_s = _MEMORY_S / 2
        if not self._given:  # nothing so far: to wait as long again is the best guess
            return passed_s
        return passed_s * (self.held / 2) / self._given
