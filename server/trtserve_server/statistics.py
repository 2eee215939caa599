"""What a model has done so far, in plain numbers: cheap to add to per batch, read by RPCs and by the metrics endpoint.

Times are in nanoseconds, histograms in the unit that their bounds have. Written by the scheduling thread only.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from trtserve_server.request import BatchTiming, InferRequest

_NS = 1e9

LATENCY_BOUNDS_S = tuple(round(base * 10.0**power, 9) for power in range(-5, 2) for base in (1, 2.5, 5))
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """Counts of observations up to each bound; the last count is for those above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Counts `value`, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_all(self, values: Sequence[float]) -> float:
        """Counts each of the values; gives their sum."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        total = sum(values)
        self.sum += total
        return total


@dataclass
class Phases:
    """Sums over executions or over requests: how many, and the ns in each phase."""

    count: int = 0
    input_ns: int = 0
    compute_ns: int = 0
    output_ns: int = 0

    def add(self, timing: BatchTiming, times: int) -> None:
        """Adds the phases of one run, `times` times."""
        self.count += times
        self.input_ns += timing.input_ns * times
        self.compute_ns += timing.compute_ns * times
        self.output_ns += timing.output_ns * times


class NanCount:
    """Batches whose outputs were searched for NaN, and those that had some. Any thread may add."""

    def __init__(self) -> None:
        self.searched = 0
        self.found = 0
        self._lock = threading.Lock()

    def add(self, found: bool) -> bool:
        """Counts one search; whether it is the first that found any."""
        with self._lock:
            self.searched += 1
            self.found += found
            return found and self.found == 1


@dataclass
class LoopStatistics:
    """How late the event loop was, beat for beat, and how often it was blocked."""

    lag_s: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))
    stalls: int = 0


@dataclass
class ModelStatistics:
    """Sums since the model was loaded.

    `inferences` counts rows, `executions` batches, `requests` requests that were run; `per_batch` holds runs by their
    rows. Requests answered from the cache are `cache_hits` and count nowhere else; their time is in `success_ns` too.
    """

    success_ns: int = 0
    queue_ns: int = 0
    failure_ns: int = 0
    inferences: int = 0
    executions: int = 0
    last_inference_ms: int = 0
    cache_hits: int = 0
    cache_hit_ns: int = 0
    cache_misses: int = 0
    cache_miss_ns: int = 0
    requests: Phases = field(default_factory=Phases)
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    per_batch: dict[int, Phases] = field(default_factory=lambda: defaultdict(Phases))
    nan: NanCount = field(default_factory=NanCount)
    queue_s: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))
    compute_s: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))
    total_s: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))
    batch_rows: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS))

    @property
    def answered(self) -> int:
        """Requests that were answered, by a run or from the cache."""
        return self.requests.count + self.cache_hits

    def record_batch(self, answered: Collection[InferRequest], timing: BatchTiming) -> None:
        """Adds one run that answered these requests."""
        started, ended = timing.started, timing.ended
        self.executions += 1
        self.per_batch[timing.rows].add(timing, 1)
        self.batch_rows.observe(timing.rows)
        self.requests.add(timing, len(answered))
        self.compute_s.observe((timing.input_ns + timing.compute_ns + timing.output_ns) / _NS, len(answered))
        self.last_inference_ms = int(time.time() * 1e3)
        arrivals = [request.arrived for request in answered]
        self.inferences += sum([request.rows for request in answered])
        self.queue_ns += int(self.queue_s.observe_all([started - arrived for arrived in arrivals]) * _NS)
        self.success_ns += int(self.total_s.observe_all([ended - arrived for arrived in arrivals]) * _NS)

    def record_cache_hit(self, total_s: float, looked_up_ns: int) -> None:
        """Adds a request that was answered from the cache, `total_s` after it arrived."""
        self.cache_hits += 1
        self.cache_hit_ns += looked_up_ns
        self.success_ns += int(total_s * _NS)
        self.total_s.observe(total_s)

    def record_cache_miss(self, spent_ns: int) -> None:
        """Adds a request that was run because the cache did not know it: the time to look it up and to store it."""
        self.cache_misses += 1
        self.cache_miss_ns += spent_ns

    def record_failures(self, requests: Collection[InferRequest], reason: str, now: float) -> None:
        """Adds requests that were refused or failed, under Triton's name of the reason."""
        if requests:
            self.failures[reason] += len(requests)
            self.failure_ns += int(sum(now - request.arrived for request in requests) * _NS)
