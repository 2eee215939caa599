"""A discrete-event simulation of the real queue, policy and batch code: bursts of requests against 1,000 instances.

The clock is simulated, so that hours of load take a minute; what is measured is the real time that the code needs for
each decision, by the number of requests that wait, and that no request is forgotten.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.report import Ratio
from trtserve_engines.engine import BatchResult
from trtserve_server.request import InferRequest, InferResponse, Outcome
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.batcher import Batcher, BatcherOptions
from trtserve_server.scheduling.device import Device
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.policy import BatchPolicy
from trtserve_server.scheduling.queue_policy import QueuePolicy
from trtserve_server.statistics import ModelStatistics

REQUESTS = 1_000_000
INSTANCES = 1_000
LEVELS = 3
RUN_S = 0.05
"""A batch takes about so long, whatever its size."""

MAX_ROWS = 8
BURST = 40_000
"""Requests that come at once, at the start of each period."""

LOAD = 0.8
"""Of what the instances can take, over time."""

PERIOD_S = BURST / (LOAD * INSTANCES * MAX_ROWS / RUN_S)
LENGTHS = (100, 1_000, 10_000, 40_000)
"""Numbers of waiting requests up to which decisions are counted together."""


class SimulatedReactor:
    """Events in the order of their simulated times."""

    def __init__(self) -> None:
        self.time = 0.0
        self._soon: deque[Callable[[], object]] = deque()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self.soon = self._soon.append

    def now(self) -> float:
        """The simulated time."""
        return self.time

    def at(self, time: float, call: Callable[[], None]) -> Callable[[], None]:
        """See Reactor; a call that is taken back does nothing when its time comes."""
        cell = [call]
        self.after(time, lambda: cell[0]())
        return partial(cell.__setitem__, 0, lambda: None)

    def after(self, time: float, call: Callable[[], object]) -> None:
        """Calls at `time`, for certain."""
        heapq.heappush(self._events, (time, next(self._numbers), call))

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """See Reactor."""
        self.soon(partial(call, *arguments))

    def step(self) -> bool:
        """Does the next event and what follows at once from it; False where there is none."""
        if not self._events:
            return False
        self.time, _, call = heapq.heappop(self._events)
        call()
        while self._soon:
            self._soon.popleft()()
        return True


class SimulatedInstance:
    """Answers each batch about RUN_S later."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.name = f"i{number}"
        self.device: Device = simulation.device
        self.idle_since = 0.0
        self.capacity = 1
        self._simulation = simulation

    def run(self, batch: Batch) -> None:
        """See Instance."""
        simulation = self._simulation
        start = simulation.reactor.time
        end = start + RUN_S * simulation.random.uniform(0.9, 1.1)
        result = BatchResult({"y": simulation.rows[: batch.rows]}, 0, 0, 0)
        simulation.reactor.after(end, partial(simulation.batcher.batch_finished, self, batch, result, start, end))


class Simulation:
    """A million requests; `waits` holds the longest wait of each level, `costs` seconds and decisions by length."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.reactor = SimulatedReactor()
        self.rows = np.zeros((MAX_ROWS, 1), np.float32)
        host = Host(self.reactor)
        self.device = host.device("gpu:0")
        options = BatcherOptions(BatchPolicy(MAX_ROWS), QueuePolicy(10**9, 10**15, levels=LEVELS))
        self.statistics = ModelStatistics()
        self.batcher = Batcher("simulated", options, self.reactor, self.statistics, host.budget)
        self.waits = [0.0] * (LEVELS + 1)
        self.answered = [0] * (LEVELS + 1)
        self.costs = {length: [0.0, 0] for length in LENGTHS}
        for number in range(INSTANCES):
            self.batcher.instance_idle(SimulatedInstance(self, number))

    def run(self) -> None:
        """Sends every burst, then works off what is left."""
        for burst in range(REQUESTS // BURST):
            self.reactor.at(burst * PERIOD_S, self._send)
        while True:
            waiting = self.batcher.waiting
            executions = self.statistics.executions
            start = time.perf_counter()
            if not self.reactor.step():
                return
            seconds = time.perf_counter() - start
            if waiting and (decisions := self.statistics.executions - executions) > 0:
                cost = self.costs[next((length for length in LENGTHS if waiting <= length), LENGTHS[-1])]
                cost[0] += seconds
                cost[1] += decisions

    def _send(self) -> None:
        now = self.reactor.time
        requests = []
        for _ in range(BURST):
            level = self.random.randint(1, LEVELS)
            complete = partial(self._complete, level)
            deadline = now + self.random.uniform(5.0, 50.0)
            requests.append(InferRequest({}, complete, arrived=now, deadline=deadline, priority=level))
        self.batcher.submit(requests)

    def _complete(self, level: int, outcome: Outcome) -> None:
        assert isinstance(outcome, InferResponse), outcome
        self.answered[level] += 1
        self.waits[level] = max(self.waits[level], outcome.timing.started - outcome.arrived)


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The cost per decision at each length, relative to that of the shortest queue, and the longest wait."""
    simulation = Simulation()
    simulation.run()
    per_decision = {length: cost / max(1, decisions) for length, (cost, decisions) in simulation.costs.items()}
    shortest = per_decision[LENGTHS[0]]
    for length, cost in per_decision.items():
        name = f"simulation, up to {length:,} waiting: cost / shortest queue"
        figures = f"{cost * 1e6:.0f} us per batch, {simulation.costs[length][1]:,} batches"
        yield Ratio(name, [cost / shortest], 2.0, False, figures)
    answered = sum(simulation.answered)
    figures = ", ".join(f"priority {level}: {simulation.waits[level]:.2f} s" for level in range(1, LEVELS + 1))
    yield Ratio(
        "simulation: longest wait / period of the bursts",
        [max(simulation.waits) / PERIOD_S],
        1.0,
        False,
        f"{answered:,} of {REQUESTS:,} answered; longest waits {figures}",
    )
