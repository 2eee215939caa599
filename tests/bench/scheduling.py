"""The scheduling core alone: CPU time per request from submission to completion, without gRPC, event loop or engine.

The requests of a run have one tensor each, three priorities and random deadlines, and come in bulks of 32; an engine
that costs nothing runs them in batches of up to 32. A standing number of others waits all the time.
"""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.report import Ratio
from trtserve_engines.engine import BatchResult
from trtserve_server.lifecycle import calm_garbage_collector
from trtserve_server.request import InferRequest, Outcome
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.batcher import Batcher, BatcherOptions
from trtserve_server.scheduling.device import Device
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.policy import BatchPolicy
from trtserve_server.scheduling.queue_policy import QueuePolicy
from trtserve_server.statistics import ModelStatistics

REQUESTS = 1_000_000
BULK = 32
STANDING = (10, 1_000, 100_000)
"""Requests that wait all the time."""

_ROW = np.zeros((1, 4), np.float32)
_ROWS = np.zeros((BULK, 4), np.float32)


class TurnReactor:
    """Does what is pending, in order, when it is told to; its clock is the real one."""

    def __init__(self) -> None:
        self.now = time.monotonic
        self.pending: deque[Callable[[], object]] = deque()
        self.soon = self.pending.append

    def at(self, time: float, call: Callable[[], None]) -> Callable[[], None]:
        """Deadlines here are far away: no timer fires."""
        return lambda: None

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """See Reactor."""
        self.soon(partial(call, *arguments))


class FreeInstance:
    """Runs a batch in no time, in the next turn."""

    def __init__(self, device: Device, reactor: TurnReactor, on_finished: Callable[..., None]) -> None:
        self.name = "free"
        self.device = device
        self.idle_since = 0.0
        self.capacity = 1
        self._reactor = reactor
        self._on_finished = on_finished

    def run(self, batch: Batch) -> None:
        """See Instance."""
        now = self._reactor.now()
        result = BatchResult({"y": _ROWS[: batch.rows]}, 0, 0, 0)
        self._reactor.soon(partial(self._on_finished, self, batch, result, now, now))


class Core:
    """A batcher with one such instance."""

    def __init__(self) -> None:
        self.reactor = TurnReactor()
        self.done = 0
        host = Host(self.reactor)
        options = BatcherOptions(BatchPolicy(BULK), QueuePolicy(10**9, 10**15), run_timeout_s=300.0)
        self.batcher = Batcher("core", options, self.reactor, ModelStatistics(), host.budget)
        self.instance = FreeInstance(host.device("gpu:0"), self.reactor, self.batcher.batch_finished)
        self._random = random.Random(0)
        self._inputs = {"x": _ROW}

    def submit(self, count: int) -> None:
        """Submits so many requests at once."""
        now, draw = self.reactor.now(), self._random.random
        self.batcher.submit(
            [
                InferRequest(
                    self._inputs,
                    self._complete,
                    arrived=now,
                    deadline=now + 1000 + 10 * draw(),
                    priority=1 + int(3 * draw()),
                    size_bytes=16,
                )
                for _ in range(count)
            ]
        )

    def run_until(self, done: int) -> None:
        """Goes on until so many requests are completed."""
        pending = self.reactor.pending
        while self.done < done:
            pending.popleft()()

    def _complete(self, outcome: Outcome) -> None:
        self.done += 1


def cost_us(standing: int, requests: int) -> float:
    """CPU microseconds per request, its making included, while `standing` others wait."""
    core = Core()
    for _ in range(standing // BULK):
        core.submit(BULK)
    core.submit(standing % BULK)
    core.batcher.instance_idle(core.instance)
    start = time.process_time()
    for done in range(BULK, requests + 1, BULK):
        core.submit(BULK)
        core.run_until(done)
    return (time.process_time() - start) / requests * 1e6


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The cost at each standing number."""
    thresholds = gc.get_threshold()
    calm_garbage_collector()
    for standing in STANDING:
        costs = [cost_us(standing, REQUESTS // rounds) for _ in range(rounds)]
        yield Ratio(f"core, {standing:,} waiting: CPU us per request", costs, 8.0, False, f"{REQUESTS:,} requests")
    gc.set_threshold(*thresholds)
    gc.unfreeze()
