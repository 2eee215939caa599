"""The waiting requests of one model: bounded, ordered by priority, deadline and arrival, grouped by what can share
a batch.

Cancelled requests leave lazily: they are skipped when met and swept out when they outnumber the living. Every
operation costs O(log n) of what waits.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator

from trtserve_server.errors import QueueFull
from trtserve_server.request import BatchKey, InferRequest

_SWEEP_MINIMUM = 64

Entry = tuple[int, float, int, InferRequest]
"""Priority, deadline, arrival number, request: what the order compares; numbers are unique, so requests never are."""


class _Lane:
    """Requests that can share a batch, most urgent first."""

    __slots__ = ("arrivals", "heap", "key", "rows")

    def __init__(self, key: BatchKey) -> None:
        self.key = key
        self.heap: list[Entry] = []
        self.arrivals: deque[InferRequest] = deque()
        self.rows = 0  # of those that still wait

    def oldest(self) -> float:
        """When the request arrived that has waited longest; the lane must not be empty."""
        while not self.arrivals[0].waiting:
            self.arrivals.popleft()
        return self.arrivals[0].arrived

    def forget_taken(self) -> None:
        """Drops those that wait no more behind one that still does, once they outnumber the waiting."""
        if len(self.arrivals) > 2 * len(self.heap) + _SWEEP_MINIMUM:
            self.arrivals = deque(request for request in self.arrivals if request.waiting)


class RequestQueue:
    """Holds at most `max_requests` waiting requests."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._waiting = 0
        self._numbers = 0
        self._lanes: dict[BatchKey, _Lane] = {}
        # Heads of lanes. An item is stale when it is not (any more) its lane's head.
        self._heads: list[tuple[Entry, _Lane]] = []
        self._deadlines: list[tuple[float, int, InferRequest]] = []
        self._dead = 0

    def __len__(self) -> int:
        return self._waiting

    def push(self, request: InferRequest) -> None:
        """Adds a request. Raises QueueFull."""
        if self._waiting >= self._max_requests:
            raise QueueFull(
                f"{self._waiting} requests wait for this model already, which is all that max_queue_size allows;"
                " send again later"
            )
        self._numbers += 1
        entry = (request.priority, request.deadline, self._numbers, request)
        lane = self._lanes.get(request.batch_key)
        if lane is None:
            lane = self._lanes[request.batch_key] = _Lane(request.batch_key)
        heapq.heappush(lane.heap, entry)
        lane.arrivals.append(request)
        lane.rows += request.rows
        self._waiting += 1
        if lane.heap[0] is entry:
            heapq.heappush(self._heads, (entry, lane))
        if request.deadline != math.inf:
            heapq.heappush(self._deadlines, (request.deadline, self._numbers, request))

    def remove(self, request: InferRequest) -> None:
        """Takes out a request that waits here and is being completed (its `done` is set by the caller)."""
        lane = self._lanes[request.batch_key]
        lane.rows -= request.rows
        self._waiting -= 1
        self._dead += 1
        if self._dead > max(self._waiting, _SWEEP_MINIMUM):
            self._sweep()

    def head(self) -> tuple[int, float] | None:
        """Rows that could share a batch with the most urgent request, and when the oldest of them arrived.

        None where nothing waits.
        """
        lane = self._head_lane()
        return (lane.rows, lane.oldest()) if lane else None

    def lanes(self) -> list[tuple[BatchKey, int, float]]:
        """Each group that can share a batch, the most urgent first: its key, rows, and its oldest request's arrival."""
        for lane in list(self._lanes.values()):
            if not lane.heap[0][3].waiting:
                self._renew_head(lane)
        ordered = sorted(self._lanes.values(), key=lambda lane: lane.heap[0])
        return [(lane.key, lane.rows, lane.oldest()) for lane in ordered]

    def take(self, max_rows: int, key: BatchKey | None = None) -> list[InferRequest]:
        """Takes the most urgent request, or that with `key`, and those after it that share its batch.

        At most `max_rows` rows, but one request even if it alone has more. Marks them as running.
        """
        lane = self._head_lane() if key is None else self._lanes.get(key)
        taken: list[InferRequest] = []
        rows = 0
        while lane is not None and (request := self._live_head(lane)) is not None:
            if taken and rows + request.rows > max_rows:
                break
            heapq.heappop(lane.heap)
            request.running = True
            rows += request.rows
            taken.append(request)
        if lane is not None:
            lane.rows -= rows
            self._waiting -= len(taken)
            lane.forget_taken()
            self._renew_head(lane)
        return taken

    def expired(self, now: float) -> Iterator[InferRequest]:
        """Yields the waiting requests whose deadline is `now` or earlier; the caller completes and removes each."""
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].waiting):
            _, _, request = heapq.heappop(self._deadlines)
            if request.waiting:
                yield request

    def next_deadline(self) -> float:
        """The earliest deadline of a waiting request, infinity where none has one."""
        while self._deadlines and not self._deadlines[0][2].waiting:
            heapq.heappop(self._deadlines)
        if len(self._deadlines) > 2 * self._waiting + _SWEEP_MINIMUM:
            self._deadlines = [item for item in self._deadlines if item[2].waiting]
            heapq.heapify(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def waiting(self) -> list[InferRequest]:
        """Every waiting request, in no particular order."""
        return [entry[3] for lane in self._lanes.values() for entry in lane.heap if entry[3].waiting]

    def _head_lane(self) -> _Lane | None:
        """The lane of the most urgent request."""
        while self._heads:
            entry, lane = self._heads[0]
            if lane.heap and lane.heap[0] is entry:
                if entry[3].waiting:
                    return lane
                heapq.heappop(self._heads)
                self._renew_head(lane)
            else:
                heapq.heappop(self._heads)
        return None

    def _live_head(self, lane: _Lane) -> InferRequest | None:
        while lane.heap:
            request = lane.heap[0][3]
            if request.waiting:
                return request
            heapq.heappop(lane.heap)
            self._dead -= 1
        return None

    def _renew_head(self, lane: _Lane) -> None:
        if self._live_head(lane) is not None:
            heapq.heappush(self._heads, (lane.heap[0], lane))
        else:
            self._lanes.pop(lane.key, None)

    def _sweep(self) -> None:
        """Drops the entries of requests that wait no more."""
        self._dead = 0
        for lane in list(self._lanes.values()):
            lane.heap = [entry for entry in lane.heap if entry[3].waiting]
            heapq.heapify(lane.heap)
            lane.arrivals = deque(request for request in lane.arrivals if request.waiting)
            if not lane.heap:
                del self._lanes[lane.key]
        self._heads = [(lane.heap[0], lane) for lane in self._lanes.values()]
        heapq.heapify(self._heads)
