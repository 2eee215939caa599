"""Twice as many requests as the server can answer, each with a deadline: what is answered in time, what is refused."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio
import numpy as np
import uvloop

from tests.bench import servers
from tests.bench.load import INFER, closed_loop, request
from tests.bench.report import Ratio
from tests.models import make_models

DEADLINE_S = 0.25
REFUSED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class Outcome(NamedTuple):
    """One request: how long until its end, and how it ended."""

    seconds: float
    code: grpc.StatusCode


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """Goodput, the latency of what was answered, and the latency of refusals."""
    path = make_models.save(make_models.convnet(), folder / "convnet.onnx")
    data = request("convnet", "image", np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32))
    goodput, latency, refusal, figures = [], [], [], []
    with servers.trtserve(str(path)) as url:
        for _ in range(rounds):
            capacity = closed_loop(url, data, 32, seconds).rate
            outcomes = uvloop.run(open_loop(url, data, 2 * capacity, 2 * seconds))
            answered = [outcome.seconds for outcome in outcomes if outcome.code is grpc.StatusCode.OK]
            # What the server refuses comes long before the deadline; at the deadline the client gives up by itself.
            refused = [outcome.seconds for outcome in outcomes if outcome.code in REFUSED]
            goodput.append(len(answered) / (2 * seconds) / capacity)
            latency.append(statistics.quantiles(answered, n=100)[98] / DEADLINE_S)
            refusal.append(statistics.median(refused) / 0.005 if refused else 0.0)
            figures.append((capacity, len(answered), len(refused)))
    shown = "; ".join(f"capacity {c:.0f}/s, {a} answered, {r} refused" for c, a, r in figures[:1])
    yield Ratio("overload x 2: goodput / capacity", goodput, 0.9, True, shown)
    yield Ratio("overload x 2: p99 of answers / deadline", latency, 1.0, False, f"deadline {DEADLINE_S * 1e3:.0f} ms")
    refusal_ms = statistics.median(refusal) * 5
    yield Ratio("overload x 2: median of refusals / 5 ms", refusal, 1.0, False, f"{refusal_ms:.1f} ms")


async def open_loop(url: str, data: bytes, rate: float, seconds: float) -> list[Outcome]:
    """Sends at a constant rate, whatever comes back, after the server has been under that load for a while."""
    async with grpc.aio.insecure_channel(url) as channel:
        call = channel.unary_unary(INFER)
        start = time.perf_counter()
        outcomes: list[tuple[float, Outcome]] = []
        tasks = []
        for number in range(int(rate * (seconds + 1))):
            due = start + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.ensure_future(_send(call, data, outcomes, due)))
        await asyncio.gather(*tasks)
    return [outcome for due, outcome in outcomes if due >= start + 1]


async def _send(
    call: grpc.aio.UnaryUnaryMultiCallable, data: bytes, outcomes: list[tuple[float, Outcome]], due: float
) -> None:
    begun = time.perf_counter()
    code = grpc.StatusCode.OK
    try:
        await call(data, timeout=DEADLINE_S)
    except grpc.aio.AioRpcError as error:
        code = error.code()
    outcomes.append((due, Outcome(time.perf_counter() - begun, code)))
