"""Takes the outcome of each request from any thread, and gives what came since as buckets of the window."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from trtserve_client.load.jobs import OK, Bucket, Window
from trtserve_client.load.timings import Timed, histograms_from_timed
from trtserve_protos.timing import Timing

Outcome = tuple[float, float, float, str]
"""The time that a request belongs to, its latency in seconds, when it ended, and its status; OK = answered."""


class Recorder:
    """Outcomes of one job. A request outside the window is not counted.

    In a closed loop a request belongs to the time when it ended; in an open loop to the time when it was due, so that
    a stall shows where it happened, on all requests that it delayed.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._outcomes: deque[Outcome] = deque()
        self._timed: deque[Timed] = deque()
        self.first_error = ""

    def add(
        self,
        belongs_to: float,
        latency: float,
        ended: float,
        status: str,
        detail: str = "",
        timing: Timing | None = None,
    ) -> None:
        """Takes one outcome."""
        if timing is not None:
            self._timed.append(Timed(belongs_to, latency, timing))
        self._outcomes.append((belongs_to, latency, ended, status))
        if status and not self.first_error:
            self.first_error = f"{status}: {detail}" if detail else status

    def take(self) -> dict[int, Bucket]:
        """What came since the last call, by the number of the bucket."""
        outcomes = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
        return buckets_from_outcomes(outcomes, self._window)

    def take_timings(self) -> dict[str, str]:
        """The histograms of the phases since the last call, encoded."""
        timed = [self._timed.popleft() for _ in range(len(self._timed))]
        return {name: each.encode() for name, each in histograms_from_timed(timed, self._window).items()}


def buckets_from_outcomes(outcomes: Sequence[Outcome], window: Window) -> dict[int, Bucket]:
    """The outcomes by bucket. Pure."""
    buckets: dict[int, Bucket] = {}
    if not outcomes:
        return buckets
    belongs, latencies, ended = np.array([outcome[:3] for outcome in outcomes]).T
    ok = np.array([outcome[3] == OK for outcome in outcomes])
    own, end = _numbers(belongs, window), _numbers(ended, window)
    for number in np.unique(np.concatenate([own, end])).tolist():
        if not 0 <= number <= window.last_bucket:
            continue
        came = ok & (end == number)
        bucket = buckets[int(number)] = Bucket(answered=int(np.count_nonzero(came)))
        bucket.last_end = float(ended[came].max(initial=0.0))
        mine = own == number
        bucket.latencies, bucket.failed = latencies[mine & ok], latencies[mine & ~ok]
        for index in np.flatnonzero(mine & ~ok).tolist():
            status = outcomes[index][3]
            bucket.errors[status] = bucket.errors.get(status, 0) + 1
    return buckets


def _numbers(times: np.ndarray, window: Window) -> np.ndarray:
    return np.floor((times - window.measured) / window.bucket_s)
