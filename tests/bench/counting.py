"""What statistics, and tracing while it is off, cost a request of a tiny model, to the time between its answers.

Both are timed by themselves, because 2 % of a rate cannot be told from the noise of two servers on a shared machine.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench import servers
from tests.bench.load import closed_loop, request
from tests.bench.report import Ratio, in_turn, medians
from tests.models import make_models
from trtserve_server.config import TraceConfig
from trtserve_server.request import BatchTiming, InferRequest
from trtserve_server.statistics import ModelStatistics
from trtserve_server.tracing import Tracer

CONCURRENCY = 16
BATCH = 4
"""Requests that share a batch: few, because what is counted once per batch then weighs more."""
TIMES = 20_000


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The one comparison."""
    make_models.save(make_models.linear(16, 8), folder / "tiny.onnx")
    tiny = request("tiny", "x", np.ones((1, 16), np.float32))
    with servers.trtserve(str(folder / "tiny.onnx")) as ours:
        pairs = in_turn(rounds, _cost_us, lambda: 1e6 / closed_loop(ours, tiny, CONCURRENCY, seconds).rate)
    figures = "{:.2f} us / {:.0f} us".format(*medians(pairs))
    yield Ratio(
        "statistics, tracing off: cost / time per request", [one / other for one, other in pairs], 0.02, False, figures
    )


def _cost_us() -> float:
    """Microseconds per request."""
    now = time.monotonic()
    requests = [InferRequest({}, lambda outcome: None, arrived=now) for _ in range(BATCH)]
    timing = BatchTiming("tiny/1#0", BATCH, now, now, now + 1e-4, now + 2e-4, 1_000, 50_000, 1_000)
    statistics = ModelStatistics()
    tracer = Tracer(TraceConfig(), lambda path, traces, anew: None)

    def once() -> None:
        statistics.record_batch(requests, timing)
        for _ in requests:
            if tracer.active:
                raise AssertionError("tracing is off")

    return timeit.timeit(once, number=TIMES) / (TIMES * BATCH) * 1e6
