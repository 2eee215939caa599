"""Eight callers with one call each on two instances that take row after row, on a simulated clock."""

import random
from functools import partial

import numpy as np

from tests.bench.simulation import SimulatedReactor
from trtserve_engines.engine import BatchResult
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.batcher import Batcher, BatcherOptions
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.policy import BatchPolicy
from trtserve_server.scheduling.queue_policy import QueuePolicy
from trtserve_server.statistics import ModelStatistics

CALLERS, INSTANCES, SECONDS = 8, 2, 20.0
ROW_S = 0.010
RETURN_S = 0.012
"""From an answer to the same caller's next request, about: both cores are busy meanwhile."""


class RowByRow:
    """An instance that takes ROW_S for each row."""

    def __init__(self, loop, number):
        self.name, self.device, self.idle_since, self.capacity = f"i{number}", loop.device, 0.0, 1
        self.loop = loop

    def run(self, batch):
        start = self.loop.reactor.time
        end = start + ROW_S * batch.rows
        self.loop.busy_s += end - start
        result = BatchResult({"y": np.zeros((batch.rows, 1))}, 0, 0, 0)
        finished = partial(self.loop.batcher.batch_finished, self, batch, result, start, end)
        self.loop.reactor.after(end, finished)


class ClosedLoop:
    def __init__(self, policy):
        self.random = random.Random(0)
        self.reactor = SimulatedReactor()
        host = Host(self.reactor)
        self.device = host.device("cpu")
        options = BatcherOptions(policy, QueuePolicy(100, 1 << 30))
        self.batcher = Batcher("m", options, self.reactor, ModelStatistics(), host.budget)
        self.busy_s = 0.0
        self.latencies = []
        for number in range(INSTANCES):
            self.batcher.instance_idle(RowByRow(self, number))
        for _ in range(CALLERS):
            self.reactor.after(0.0, self.send)
        while self.reactor.time < SECONDS:
            self.reactor.step()
        self.busy = self.busy_s / SECONDS / INSTANCES
        self.p99_s = float(np.percentile(self.latencies, 99))

    def send(self):
        sent = self.reactor.time
        self.batcher.submit([InferRequest({}, partial(self.answered, sent), arrived=sent)])

    def answered(self, sent, outcome):
        now = self.reactor.time
        self.latencies.append(now - sent)
        self.reactor.after(now + RETURN_S * self.random.uniform(0.5, 1.5), self.send)


def test_batches_that_are_no_larger_than_gains_anything_keep_every_instance_busy():
    whole, small = ClosedLoop(BatchPolicy(64)), ClosedLoop(BatchPolicy(64, fixed_rows=0.02))
    assert small.busy > 0.99 > 0.96 > whole.busy
    assert small.p99_s < 0.7 * whole.p99_s
