"""Whether a request that has just come can be answered in time, from what waits, what runs and how fast that goes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trtserve_server.request import InferRequest
from trtserve_server.scheduling.admission import MARGIN, too_late
from trtserve_server.scheduling.pace import FRESH_S, Pace
from trtserve_server.scheduling.pool import Pool
from trtserve_server.scheduling.queue import RequestQueue
from trtserve_server.scheduling.watchdog import Watchdog


class Forecast:
    """Reads one batcher's parts; changes nothing but that a backlog that was given up is over."""

    def __init__(self, queue: RequestQueue, pool: Pool, watchdog: Watchdog, pace: Pace, max_rows: int) -> None:
        self._queue = queue
        self._pool = pool
        self._watchdog = watchdog
        self._pace = pace
        self._max_rows = max_rows

    def refusal(self, request: InferRequest, start_by: float, now: float) -> str:
        """Why a request, which is placed but not yet pushed, cannot start by `start_by` or be answered in time."""
        rows = self._queue.rows
        wait_s = 0.0 if self._pool.idle else self._until_idle_s(now)
        if rows:
            if now + (wait_s + self.drain_s()) * MARGIN + self._pace.run_s(self._max_rows) < start_by:
                return ""  # in time even behind all others
            rows = int(self._queue.rows_before(request))
        wait_s += rows * self._pace.row_s
        run_s = self.run_s(min(self._max_rows, rows + request.rows), now)
        return too_late(now, request.deadline, start_by, wait_s, run_s)

    def request_comes(self) -> None:
        """Takes note of an arrival: where nothing waits and nothing runs, the backlog has been given up before."""
        if self._pace.is_in_backlog and not self._queue.rows and self._watchdog.oldest() is None:
            self._pace.end_backlog()

    def surely_by(self, requests: Sequence[InferRequest], now: float) -> float:
        """A time by which the last of requests that come at once has begun, behind all that waits; worked out once.

        Infinity where that is not to be said so simply: each has to be looked at.
        """
        if len(requests) < 2 or not self._queue.rows:
            return math.inf
        wait_s = 0.0 if self._pool.idle else self._until_idle_s(now)
        rows = self._queue.rows + sum([request.rows for request in requests])
        return now + (wait_s + rows * self._pace.row_s) * MARGIN + self._pace.run_s(self._max_rows)

    def run_s(self, rows: int, now: float) -> float:
        """What a run of `rows` rows takes; 0 where that is to be found out anew."""
        if self._watchdog.oldest() is None and now - self._pace.last > FRESH_S:
            return 0.0
        return self._pace.run_s(rows)

    def latest_start(self, expires: float, rows: int) -> float:
        """When a batch of up to `rows` rows has to start, the most urgent of which expires at `expires`."""
        if expires == math.inf:
            return expires
        return expires - MARGIN * self._pace.run_s(min(rows, self._max_rows))

    def drain_s(self) -> float:
        """In how many seconds all that waits now will have been run."""
        return self._queue.rows * self._pace.row_s

    def retry_after_s(self, now: float) -> float:
        """When a refused request had better come again: half of what waits is gone, and nobody idle yet.

        Where what runs should have ended already, or nothing is known, that is as long again as it has run.
        """
        oldest = self._watchdog.oldest()
        run_s = self._until_idle_s(now) or (now - oldest[0] if oldest else 0.0)
        return max(self.drain_s() / 2, run_s)

    def _until_idle_s(self, now: float) -> float:
        oldest = self._watchdog.oldest()
        if oldest is None:
            return 0.0
        since, batch = oldest
        return max(0.0, since + self._pace.run_s(batch.rows) - now)
