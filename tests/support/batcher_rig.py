"""A batcher with instances that a test finishes by hand, on a manual clock, and the outcomes of its requests."""

from __future__ import annotations

import math

import numpy as np

from tests.support.manual_reactor import ManualInstance, ManualReactor
from trtserve_server.request import InferRequest, InferResponse
from trtserve_server.scheduling.batcher import Batcher, BatcherOptions
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.policy import BatchPolicy
from trtserve_server.scheduling.queue_policy import QueuePolicy
from trtserve_server.statistics import ModelStatistics


class Rig:
    """A batcher with its instances, and the outcomes of every request in order of their completion."""

    def __init__(
        self,
        *,
        max_rows=8,
        delay_s=0.0,
        preferred=(),
        fixed_rows=math.inf,
        instances=1,
        max_queue_size=100,
        queue=None,
        threads=(),
        inline_rows=0,
        run_timeout_s=math.inf,
        host=None,
        reactor=None,
    ):
        self.reactor = reactor or ManualReactor()
        self.statistics = ModelStatistics()
        options = BatcherOptions(
            BatchPolicy(max_rows, delay_s, preferred, fixed_rows),
            queue or QueuePolicy(max_queue_size, max_bytes=1 << 30),
            threads=threads,
            inline_rows=inline_rows,
            run_timeout_s=run_timeout_s,
        )
        self.host = host or Host(self.reactor)
        self.batcher = Batcher("m", options, self.reactor, self.statistics, self.host.budget)
        self.instances = [
            ManualInstance(f"i{number}", self.batcher.batch_finished, self.reactor, self.host.device("cpu"))
            for number in range(instances)
        ]
        self.outcomes = {}
        for instance in self.instances:
            self.batcher.instance_idle(instance)
        self.reactor.run()

    def submit(self, value, *, rows=1, deadline=math.inf, key=(), priority=0, in_place=False, **more):
        array = np.full((rows, 1), value)
        complete = lambda outcome: self.outcomes.setdefault(value, []).append(outcome)
        request = InferRequest(
            {"x": array}, complete, arrived=self.reactor.now(), deadline=deadline, priority=priority, **more
        )
        request.rows, request.batch_key, request.in_place = rows, key, in_place
        self.batcher.submit([request])
        return request

    def answer(self, value):
        (outcome,) = self.outcomes[value]
        return outcome

    def answered(self, value, rows=1):
        outcome = self.answer(value)
        assert isinstance(outcome, InferResponse), outcome
        np.testing.assert_array_equal(outcome.outputs["x"], np.full((rows, 1), value))
        return True

    def failed(self, value, error):
        return isinstance(self.answer(value), error)
