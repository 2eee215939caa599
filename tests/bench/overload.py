"""Twice as many requests as the server can answer, each with a deadline: what is answered in time, what is refused."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench import servers
from tests.bench.harness import Harness
from tests.bench.load import closed_loop, request
from tests.bench.report import Ratio
from tests.models import make_models

DEADLINE_S = 0.25
WARM_UP_S = 1.0
"""The server has been under the load for so long before it counts."""
REFUSED = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """Goodput, the latency of what was answered, and the latency of refusals."""
    path = make_models.save(make_models.convnet(), folder / "convnet.onnx")
    data = request("convnet", "image", np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32))
    goodput, latency, refusal, figures = [], [], [], []
    with servers.trtserve(str(path)) as url, Harness() as harness:
        for _ in range(rounds):
            capacity = closed_loop(url, data, 32, seconds).rate
            seen = harness.open_loop(url, data, 2 * capacity, WARM_UP_S, 2 * seconds, DEADLINE_S)
            answered, failed = seen.latencies(), seen.failed()
            if other := set(seen.errors()) - set(REFUSED):
                raise RuntimeError(f"neither answered nor refused: {', '.join(other)}; {seen.first_error}")
            goodput.append(answered.count / (2 * seconds) / capacity)
            # From when a request was due, as everywhere in the harness: what the client itself was late counts too.
            latency.append(answered.percentile(99) / 1e3 / DEADLINE_S)
            # What the server refuses comes long before the deadline; at the deadline the client gives up by itself.
            refusal.append(failed.percentile(50) / 5)
            figures.append((capacity, answered.count, failed.count))
    shown = "; ".join(f"capacity {c:.0f}/s, {a} answered, {r} refused" for c, a, r in figures[:1])
    yield Ratio("overload x 2: goodput / capacity", goodput, 0.9, True, shown)
    yield Ratio("overload x 2: p99 of answers / deadline", latency, 1.0, False, f"deadline {DEADLINE_S * 1e3:.0f} ms")
    refusal_ms = statistics.median(refusal) * 5
    yield Ratio("overload x 2: median of refusals / 5 ms", refusal, 1.0, False, f"{refusal_ms:.1f} ms")
