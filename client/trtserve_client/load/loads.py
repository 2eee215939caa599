"""Loads and how they are cut: which ones a configuration asks for, the window of each, every worker's share. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trtserve_client.load.arrivals import offsets_of, share
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.jobs import ClosedLoad, Job, OpenLoad, Window

_THIRD_BUCKETS = 20
_LEAST_BUCKET_S = 0.15
_COUNT_BUCKET_S = 0.2
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Load:
    """One load: `concurrency` requests under way, or `rate` a second, or `offsets` of a trace; the others are 0."""

    label: str
    concurrency: int = 0
    rate: float = 0.0
    offsets: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False)

    @property
    def offered(self) -> float:
        """Requests per second that an open loop offers; 0 for a closed one."""
        if len(self.offsets) > 1:
            return len(self.offsets) / float(self.offsets[-1]) if self.offsets[-1] else 0.0
        return self.rate


def closed(concurrency: int) -> Load:
    """A closed loop."""
    return Load(f"{concurrency} at once", concurrency=concurrency)


def open_at(rate: float) -> Load:
    """An open loop."""
    return Load(f"{rate:g}/s", rate=rate)


def loads_of(config: LoadConfig, trace: np.ndarray | None = None) -> list[Load]:
    """The loads that the configuration asks for, in its order; `trace` holds the offsets of its trace."""
    if trace is not None:
        return [Load("trace", offsets=trace)]
    if config.rate:
        return [open_at(rate) for rate in config.rate]
    return [closed(concurrency) for concurrency in config.concurrencies]


def workers_of(config: LoadConfig, cpus: int) -> int:
    """How many workers to start: half the CPUs leaves the other half to a server beside them."""
    wanted = config.workers or max(1, min(_MOST_WORKERS, cpus // 2))
    if config.streams:
        # Every worker gets the same number of streams.
        return next(count for count in range(min(wanted, config.streams), 0, -1) if config.streams % count == 0)
    return wanted


def window_of(load: Load, config: LoadConfig, begins: float) -> Window:
    """When to load and when to measure. A trace has no warm-up; its requests may be what warms up."""
    if len(load.offsets):
        seconds = float(load.offsets[-1]) + 1e-3
        return Window(begins, begins, begins + seconds, _bucket_s(seconds))
    measured = begins + config.warmup_s
    if config.count and not load.rate:
        return Window(begins, measured, math.inf, _COUNT_BUCKET_S)
    seconds = config.count / load.rate if config.count else config.duration_s
    return Window(begins, measured, measured + seconds, _bucket_s(seconds))


def jobs_of(load: Load, window: Window, config: LoadConfig, workers: int) -> list[Job]:
    """Each worker's job. A closed loop of fewer requests than workers needs fewer workers."""
    if load.concurrency:
        used = min(workers, load.concurrency)
        counts = _split(config.count, used)
        return [
            Job(window, ClosedLoad(concurrency, count))
            for concurrency, count in zip(_split(load.concurrency, used), counts, strict=True)
        ]
    offsets = load.offsets
    if not len(offsets):
        offsets = offsets_of(config.arrivals, load.rate, window.ends - window.begins, config.seed)
    places = max(1, config.max_in_flight // workers)
    return [Job(window, OpenLoad(share(offsets, number, workers), places)) for number in range(workers)]


def due_of(jobs: Sequence[Job]) -> int:
    """How many requests of open loops are due while it is measured."""
    due = 0
    for job in jobs:
        if isinstance(job.load, OpenLoad):
            due += int(np.count_nonzero(job.load.offsets >= job.window.measured - job.window.begins))
    return due


def _split(total: int, parts: int) -> Sequence[int]:
    return [total // parts + (number < total % parts) for number in range(parts)]


def _bucket_s(seconds: float) -> float:
    """A width that cuts the measurement into thirds of whole buckets."""
    return seconds / (3 * max(1, min(_THIRD_BUCKETS, int(seconds / 3 / _LEAST_BUCKET_S))))
