"""What was measured, as plain records that JSON can hold, and as JSON again. Latencies are in ms, rates per second."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class Point:
    """One bucket of the timeline: seconds from the beginning, and what went on. `batch` is 0 where nobody knows."""

    at_s: float
    rate: float
    p50: float
    p99: float
    errors: int
    batch: float = 0.0


@dataclass(frozen=True)
class ClientUse:
    """How hard this side worked: the busiest worker's share of one CPU, and how late requests were sent, in ms."""

    workers: int
    cpu_share: float
    lag_p99: float
    machine_cpu: float
    """Share of all CPUs of this machine, by whomever."""
    limited: str = ""
    """Why the client may have been the limit; "" where it was not."""


@dataclass(frozen=True)
class ServerUse:
    """What the server's statistics and this machine say of the server; empty where they say nothing."""

    phases_ms: Mapping[str, float] = field(default_factory=dict)
    """Mean time of a request in queue, compute_input, compute_infer, compute_output."""
    batch: float = 0.0
    """Mean rows in a batch."""
    batch_sizes: Mapping[str, int] = field(default_factory=dict)
    """Batches by their rows."""
    cpu_share: float = 0.0
    """CPUs in use; 1 is one of them."""
    memory_bytes: int = 0
    gpu_share: float = 0.0
    gpu_memory_bytes: int = 0
    unknown: str = ""
    """Why the server's statistics say nothing; "" where they were read."""


@dataclass(frozen=True)
class Run:
    """One measurement of one load."""

    seconds: float
    answered: int
    throughput: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    mean: float
    errors: Mapping[str, int]
    first_error: str
    unsent: int
    unanswered: int
    stable: bool
    instability: str
    reached: bool
    curve: Sequence[tuple[float, float]]
    timeline: Sequence[Point]
    client: ClientUse
    server: ServerUse
    histogram: str
    interrupted: bool = False
    error_p50: float = 0.0
    """Half of the requests that failed had their error within this time."""
    timings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Mean, p50, p90, p99 and max of each phase in ms, and of the rows of a request's batch, as answers told them."""

    @property
    def error_count(self) -> int:
        """Requests that failed, were given up, or could not be sent."""
        return sum(self.errors.values()) + self.unanswered + self.unsent


METRICS = ("throughput", "p50", "p90", "p99", "p999", "max", "mean")


@dataclass(frozen=True)
class Spread:
    """A figure over repeated runs."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Level:
    """One load with its runs. `offered` is the rate of an open loop, `concurrency` that of a closed one; else 0."""

    target: str
    label: str
    concurrency: int
    offered: float
    runs: Sequence[Run]

    def spread(self, metric: str) -> Spread:
        """A metric of METRICS, over the runs."""
        values = [getattr(run, metric) for run in self.runs]
        return Spread(statistics.median(values), min(values), max(values))

    @property
    def median_run(self) -> Run:
        """The run whose throughput is the median, or next to it: the one to draw."""
        return sorted(self.runs, key=lambda run: run.throughput)[len(self.runs) // 2]


@dataclass(frozen=True)
class Ratio:
    """A target's figure by that of the first target: median of the rounds, and where it lies with 95 % confidence."""

    target: str
    metric: str
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """A whole measurement."""

    title: str
    kind: str
    """levels, capacity or compare."""
    command: str
    time: str
    environment: Mapping[str, str]
    settings: Mapping[str, Any]
    levels: Sequence[Level]
    ratios: Sequence[Ratio] = ()
    capacity: float = 0.0
    """The highest rate that held the objective; 0 where none was searched or none held it."""
    interrupted: bool = False


def names_of(levels: Sequence[Level]) -> Mapping[str, None]:
    """The targets, in the order of their first appearance."""
    return dict.fromkeys(level.target for level in levels)


def document_from_result(result: Result) -> dict[str, Any]:
    """The result as values that JSON has, with each level's medians beside its runs."""
    document = {"schema": SCHEMA, **dataclasses.asdict(result)}
    for level, written in zip(result.levels, document["levels"], strict=True):
        written["summary"] = {metric: dataclasses.asdict(level.spread(metric)) for metric in METRICS}
        written["summary"]["errors"] = {"median": statistics.median(run.error_count for run in level.runs)}
    return document
