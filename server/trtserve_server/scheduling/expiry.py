"""Which waiting requests' time is over: buckets of one millisecond, so that adding and dropping one costs the same
however many wait. A request is reported up to a millisecond after it has expired.
"""

from __future__ import annotations

import heapq
import math

from trtserve_server.request import InferRequest

_BUCKETS_PER_S = 1000.0
_PRUNE_MINIMUM = 64


class ExpiryIndex:
    """The waiting requests that expire, by when they do."""

    __slots__ = ("_buckets", "_times")

    def __init__(self) -> None:
        self._buckets: dict[int, set[InferRequest]] = {}
        self._times: list[int] = []  # a heap; a time whose bucket is gone is skipped

    def add(self, request: InferRequest) -> None:
        """Takes a request whose `expires` is finite."""
        time = int(request.expires * _BUCKETS_PER_S)
        bucket = self._buckets.get(time)
        if bucket is None:
            bucket = self._buckets[time] = set()
            heapq.heappush(self._times, time)
        bucket.add(request)

    def discard(self, request: InferRequest) -> None:
        """Drops a request that waits no more."""
        time = int(request.expires * _BUCKETS_PER_S)
        bucket = self._buckets.get(time)
        if bucket is not None:
            bucket.discard(request)
            if not bucket:
                del self._buckets[time]

    def next(self) -> float:
        """When the next request will be reported; infinity where none expires."""
        times = self._times
        if len(times) > 2 * len(self._buckets) + _PRUNE_MINIMUM:
            times[:] = sorted(self._buckets)  # a sorted list is a heap
        while times and times[0] not in self._buckets:
            heapq.heappop(times)
        return (times[0] + 1) / _BUCKETS_PER_S if times else math.inf

    def pop(self, now: float) -> list[InferRequest]:
        """Takes out the requests whose time is over."""
        expired: list[InferRequest] = []
        while self.next() <= now:
            expired += self._buckets.pop(heapq.heappop(self._times))
        return expired
