"""The waiting requests of one model: bounded, ordered by priority, deadline and arrival, grouped by what can share
a batch.

Cancelled requests leave lazily: they are skipped when met and swept out when they outnumber the living. Every
operation costs O(log n) of what waits.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import NamedTuple

from trtserve_server.errors import QueueFull
from trtserve_server.request import BatchKey, InferRequest
from trtserve_server.scheduling.expiry import ExpiryIndex
from trtserve_server.scheduling.queue_policy import QueuePolicy

_SWEEP_MINIMUM = 64
_SAMPLE = 32

Entry = tuple[int, float, int, InferRequest]
"""Rank, expiry, arrival number, request: what the order compares; numbers are unique, so requests never are.

The rank is twice the priority level, and one more for requests that a timeout has put behind their level. An entry is
stale when its number is not (any more) its request's.
"""


class Taken(NamedTuple):
    """What left the queue: `requests` to be run together, and those that are too `late` to be run.

    `short` says that there would be room for more rows, but not for all of the next request.
    """

    requests: list[InferRequest]
    late: list[InferRequest]
    short: bool = False


class Waiting(NamedTuple):
    """Requests that can share a batch: their rows, when the oldest of them arrived, when the most urgent expires."""

    key: BatchKey
    rows: int
    oldest: float
    expires: float


class _Lane:
    """Requests that can share a batch, most urgent first."""

    __slots__ = ("arrivals", "heap", "key", "rows")

    def __init__(self, key: BatchKey) -> None:
        self.key = key
        self.heap: list[Entry] = []
        self.arrivals: deque[InferRequest] = deque()
        self.rows = 0  # of those that still wait

    def waiting(self) -> Waiting:
        """What waits here; the lane must not be empty and its head live."""
        while not self.arrivals[0].number:
            self.arrivals.popleft()
        return Waiting(self.key, self.rows, self.arrivals[0].arrived, self.heap[0][1])

    def forget_taken(self) -> None:
        """Drops those that wait no more behind one that still does, once they outnumber the waiting."""
        if len(self.arrivals) > 2 * len(self.heap) + _SWEEP_MINIMUM:
            self.arrivals = deque(request for request in self.arrivals if request.number)


class RequestQueue:
    """Holds the waiting requests of one model, as many as its policy allows."""

    def __init__(self, policy: QueuePolicy) -> None:
        self._policy = policy
        self._waiting = 0
        self._bytes = 0
        self._numbers = 0
        self._lanes: dict[BatchKey, _Lane] = {}
        # Heads of lanes. An item is stale when it is not (any more) its lane's head.
        self._heads: list[tuple[Entry, _Lane]] = []
        self._expiry = ExpiryIndex()
        self.rows = 0
        """Rows of all waiting requests."""
        self._by_level: dict[int, int] | None = None if policy.is_plain else {}
        self._dead = 0

    def __len__(self) -> int:
        return self._waiting

    def place(self, request: InferRequest) -> None:
        """Sets the request's level and when its time to wait is over, before it is pushed."""
        policy = self._policy
        request.level = policy.level_of(request.priority)
        limit_s = request.wait_limit_s
        if self._by_level is not None:
            limit_s = policy.of_level(request.level).wait_limit_s(limit_s)
        if limit_s != math.inf:
            request.expires = min(request.deadline, request.arrived + limit_s)

    def refused_at(self, request: InferRequest) -> float:
        """When a request that is placed is refused if its run has not started by then; infinity where never."""
        delayed = self._by_level is not None and self._policy.of_level(request.level).delay
        return request.deadline if delayed else request.expires

    def push(self, request: InferRequest) -> None:
        """Adds a request that has been placed. Raises QueueFull."""
        policy = self._policy
        size = request.size_bytes + request.shared_bytes
        if self._waiting and (self._waiting >= policy.max_requests or self._bytes + size > policy.max_bytes):
            raise self._full(size)
        if self._by_level is not None:
            self._enter_level(request.level)
        self._waiting += 1
        self._bytes += size
        self.rows += request.rows
        self._insert(request, 2 * request.level)

    def remove(self, request: InferRequest) -> None:
        """Takes out a request that waits here."""
        self._forget(request)
        self._lanes[request.batch_key].rows -= request.rows
        self._dead += 1
        if self._dead > max(self._waiting, _SWEEP_MINIMUM):
            self._sweep()

    def head(self) -> Waiting | None:
        """What could share a batch with the most urgent request; None where nothing waits."""
        lane = self._head_lane()
        return lane.waiting() if lane else None

    def lanes(self) -> list[Waiting]:
        """Each group that can share a batch, the most urgent first."""
        for lane in list(self._lanes.values()):
            if not _is_live(lane.heap[0]):
                self._renew_head(lane)
        return [lane.waiting() for lane in sorted(self._lanes.values(), key=lambda lane: lane.heap[0])]

    def take(self, max_rows: int, key: BatchKey | None = None, *, ends: float = -math.inf) -> Taken:
        """Takes the most urgent request, or that with `key`, and those after it that share its batch.

        At most `max_rows` rows, but one request even if it alone has more. Those whose deadline is before `ends`,
        when the batch would be done, are taken out as late.
        """
        lane = self._head_lane() if key is None else self._lanes.get(key)
        taken: list[InferRequest] = []
        late: list[InferRequest] = []
        if lane is None:
            return Taken(taken, late)
        rows = late_rows = 0
        short = False
        heap = lane.heap
        while heap:
            _, _, number, request = heap[0]
            if number != request.number:  # it has left already
                self._dead -= 1
            elif request.deadline < ends:
                late.append(request)
                late_rows += request.rows
            elif taken and rows + request.rows > max_rows:
                short = rows < max_rows
                break
            else:
                taken.append(request)
                rows += request.rows
            heapq.heappop(heap)
        for request in (*taken, *late):
            self._forget(request)
        lane.rows -= rows + late_rows
        lane.forget_taken()
        self._renew_head(lane)
        return Taken(taken, late, short)

    def expired(self, now: float) -> list[InferRequest]:
        """Takes out the requests whose time to wait is over and gives those that are to be refused.

        Those whose policy says so stay, behind all others of their level.
        """
        refused = []
        for request in self._expiry.pop(now):
            if request.deadline > now and self._policy.of_level(request.level).delay:
                self._postpone(request)
            else:
                self.remove(request)
                refused.append(request)
        return refused

    def next_expiry(self) -> float:
        """When the time of a waiting request is over next, infinity where that never is."""
        return self._expiry.next()

    def rows_before(self, request: InferRequest) -> float:
        """About how many waiting rows run before a request that is placed: of its shape by a sample, all others."""
        lane = self._lanes.get(request.batch_key)
        own = 0.0
        if lane is not None and lane.heap:
            sample = lane.heap[:: max(1, len(lane.heap) // _SAMPLE)]
            place = (2 * request.level, request.expires, self._numbers + 1)
            own = lane.rows * sum(entry[:3] < place for entry in sample) / len(sample)
        return own + self.rows - (lane.rows if lane is not None else 0)

    def waiting(self) -> list[InferRequest]:
        """Every waiting request, in no particular order."""
        return [entry[3] for lane in self._lanes.values() for entry in lane.heap if _is_live(entry)]

    def _full(self, size: int) -> QueueFull:
        policy = self._policy
        if self._waiting >= policy.max_requests:
            return QueueFull(
                f"{self._waiting} requests wait for this model already, which is all that max_queue_size allows;"
                " send again later"
            )
        return QueueFull(
            f"the requests that wait for this model hold {self._bytes} bytes; {size} more would pass"
            f" max_queue_bytes = {policy.max_bytes}; send again later"
        )

    def _enter_level(self, level: int) -> None:
        """Counts a request in on its level. Raises QueueFull."""
        assert self._by_level is not None
        limit = self._policy.of_level(level).max_requests
        count = self._by_level.get(level, 0)
        if limit and count >= limit:
            raise QueueFull(
                f"{count} requests of priority {level} wait for this model already, which is all that the"
                " max_queue_size of their level allows; send again later"
            )
        self._by_level[level] = count + 1

    def _leave_level(self, level: int) -> None:
        """Counts a request out. A level on which none waits is forgotten: clients may name any number of levels."""
        assert self._by_level is not None
        self._by_level[level] -= 1
        if not self._by_level[level]:
            del self._by_level[level]

    def _insert(self, request: InferRequest, rank: int) -> None:
        self._numbers = request.number = number = self._numbers + 1
        expires, key = request.expires, request.batch_key
        entry = (rank, expires, number, request)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
        heap = lane.heap
        heapq.heappush(heap, entry)
        lane.arrivals.append(request)
        lane.rows += request.rows
        if heap[0] is entry:
            heapq.heappush(self._heads, (entry, lane))
        if expires != math.inf:
            self._expiry.add(request)

    def _postpone(self, request: InferRequest) -> None:
        """Puts a request whose timeout has passed behind its level, to run before its deadline if anything is left."""
        self._lanes[request.batch_key].rows -= request.rows
        self._dead += 1
        request.expires = request.deadline
        self._insert(request, 2 * request.level + 1)

    def _forget(self, request: InferRequest) -> None:
        """Counts a request out; its entry is stale from now on."""
        request.number = 0
        self._waiting -= 1
        self._bytes -= request.size_bytes + request.shared_bytes
        self.rows -= request.rows
        if request.expires != math.inf:
            self._expiry.discard(request)
        if self._by_level is not None:
            self._leave_level(request.level)

    def _head_lane(self) -> _Lane | None:
        """The lane of the most urgent request."""
        while self._heads:
            entry, lane = self._heads[0]
            if lane.heap and lane.heap[0] is entry:
                if _is_live(entry):
                    return lane
                heapq.heappop(self._heads)
                self._renew_head(lane)
            else:
                heapq.heappop(self._heads)
        return None

    def _live_head(self, lane: _Lane) -> InferRequest | None:
        heap = lane.heap
        while heap:
            entry = heap[0]
            if entry[2] == entry[3].number:
                return entry[3]
            heapq.heappop(heap)
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
            lane.heap = [entry for entry in lane.heap if _is_live(entry)]
            heapq.heapify(lane.heap)
            lane.arrivals = deque(request for request in lane.arrivals if request.number)
            if not lane.heap:
                del self._lanes[lane.key]
        self._heads = [(lane.heap[0], lane) for lane in self._lanes.values()]
        heapq.heapify(self._heads)


def _is_live(entry: Entry) -> bool:
    return entry[2] == entry[3].number
