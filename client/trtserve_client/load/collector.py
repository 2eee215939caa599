"""Gathers what the workers tell of one measurement, and works out its figures. Knows no process and no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trtserve_client.load.histogram import Histogram, merged
from trtserve_client.load.jobs import Finished, Progress, Window
from trtserve_client.load.results import ClientUse, Point, Run, ServerUse
from trtserve_client.load.timings import told
from trtserve_client.load.verdicts import client_limit, instability, rate_reached

PARTS = 3
"""A measurement is stable where its thirds agree."""

_LEAST_CPU_S = 0.1
"""The system counts CPU time in hundredths of a second: a share over less is chance."""


@dataclass
class _Total:
    """One bucket over all workers."""

    latencies: Histogram = field(default_factory=Histogram)
    failed: Histogram = field(default_factory=Histogram)
    answered: int = 0
    errors: dict[str, int] = field(default_factory=dict)


class Collector:
    """One measurement over all workers. `buckets` may be looked at while it goes on, for a live view."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.buckets: dict[int, _Total] = {}
        self.first_error = ""
        self.timings: dict[str, Histogram] = {}
        self._last_end = window.measured
        self._cpu: dict[int, list[tuple[float, float]]] = {}

    def add(self, worker: int, progress: Progress) -> None:
        """Takes what one worker tells."""
        self._cpu.setdefault(worker, []).append((progress.time, progress.cpu_s))
        self.first_error = self.first_error or progress.first_error
        for name, text in progress.timings.items():
            self.timings.setdefault(name, Histogram()).add(Histogram.decode(text))
        for number, bucket in progress.buckets.items():
            total = self.buckets.setdefault(number, _Total())
            total.answered += bucket.answered
            self._last_end = max(self._last_end, bucket.last_end)
            total.latencies.record(bucket.latencies)
            total.failed.record(bucket.failed)
            for status, count in bucket.errors.items():
                total.errors[status] = total.errors.get(status, 0) + count

    def latencies(self) -> Histogram:
        """Every latency so far."""
        return merged(total.latencies for total in self.buckets.values())

    def errors(self) -> dict[str, int]:
        """Failed requests so far, by their status."""
        errors: dict[str, int] = {}
        for total in self.buckets.values():
            for status, count in total.errors.items():
                errors[status] = errors.get(status, 0) + count
        return errors

    def failed(self) -> Histogram:
        """How long every failed request took until its error."""
        return merged(total.failed for total in self.buckets.values())

    def seconds(self, *, cut_short: bool) -> float:
        """How long was measured: the whole window, or to the last answer where a count or a stop ended it."""
        if cut_short or math.isinf(self.window.ends):
            return self._last_end - self.window.measured
        return self.window.ends - self.window.measured

    def cpu_share(self) -> float:
        """CPUs that the busiest worker used while it was measured."""
        shares = []
        ends = min(self.window.ends, self._last_end)
        for samples in self._cpu.values():
            inside = [sample for sample in samples if self.window.measured <= sample[0] <= ends + self.window.bucket_s]
            if len(inside) > 1 and inside[-1][0] >= inside[0][0] + _LEAST_CPU_S:
                shares.append((inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0]))
        return max(shares, default=0.0)


def run_from_collected(
    collector: Collector,
    finished: Sequence[Finished],
    *,
    due: int,
    tolerance_percent: float,
    machine_cpu: float,
    server: ServerUse,
    batches: Mapping[int, float],
    server_is_here: bool,
    interrupted: bool,
) -> Run:
    """The figures of one measurement.

    `due` is how many requests an open loop had to send in the window, 0 in a closed loop. `batches` holds the mean rows
    of a batch by the number of the bucket.
    """
    latencies, seconds = collector.latencies(), collector.seconds(cut_short=interrupted)
    ended = sum(total.answered for total in collector.buckets.values())
    unsent = sum(each.unsent for each in finished)
    throughput = ended / seconds if seconds else 0.0
    lags = np.concatenate([each.lags for each in finished]) if finished else np.empty(0)
    lag_p99 = float(np.percentile(lags, 99) * 1e3) if len(lags) else 0.0
    share, p50 = collector.cpu_share(), latencies.percentile(50)
    limit = ""
    if finished:  # without a worker, what was measured is in no other process
        limit = client_limit(
            cpu_share=share, lag_p99_ms=lag_p99, p50_ms=p50, machine_cpu=machine_cpu, server_is_here=server_is_here
        )
    unstable = _instability(collector, tolerance_percent, closed=not due)
    errors = collector.errors()
    return Run(
        seconds=seconds,
        answered=latencies.count,
        throughput=throughput,
        p50=p50,
        p90=latencies.percentile(90),
        p99=latencies.percentile(99),
        p999=latencies.percentile(99.9),
        max=latencies.maximum,
        mean=latencies.mean,
        errors=errors,
        first_error=collector.first_error,
        error_p50=collector.failed().percentile(50),
        unsent=unsent,
        unanswered=sum(each.unanswered for each in finished),
        stable=not unstable,
        instability=unstable,
        reached=interrupted or rate_reached(due, ended + sum(errors.values()), unsent),
        curve=latencies.curve(),
        timeline=_timeline(collector, batches),
        client=ClientUse(len(finished), share, lag_p99, machine_cpu, limit),
        server=server,
        histogram=latencies.encode(),
        interrupted=interrupted,
        timings=told(collector.timings),
    )


def _timeline(collector: Collector, batches: Mapping[int, float]) -> list[Point]:
    width, points = collector.window.bucket_s, []
    for number in range(max(collector.buckets, default=-1) + 1):
        total = collector.buckets.get(number, _Total())
        points.append(
            Point(
                at_s=number * width,
                rate=total.answered / width,
                p50=total.latencies.percentile(50),
                p99=total.latencies.percentile(99),
                errors=sum(total.errors.values()),
                batch=batches.get(number, 0.0),
            )
        )
    return points


def _instability(collector: Collector, tolerance_percent: float, *, closed: bool) -> str:
    count = max(collector.buckets, default=-1) + 1
    if count < PARTS:
        return "the measurement is too short to tell"
    rates, p50s = [], []
    for numbers in np.array_split(np.arange(count - count % PARTS), PARTS):
        part = [collector.buckets[number] for number in numbers.tolist() if number in collector.buckets]
        rates.append(sum(total.answered for total in part) / (len(numbers) * collector.window.bucket_s))
        p50s.append(merged(total.latencies for total in part).percentile(50))
    # The rate of an open loop is its clock's; by chance it differs from third to third.
    return instability(rates if closed else [], p50s, tolerance_percent)
