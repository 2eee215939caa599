"""A caller known to be alone is answered before `submit` returns, by the rules that hold for requests in the queue."""

import logging
import math

import numpy as np
import pytest

from tests.support.manual_reactor import ManualReactor
from trtserve_engines.engine import BatchResult
from trtserve_engines.errors import ExecutionError
from trtserve_server.errors import DeadlineExceeded, InferenceFailed, RequestCancelled, ServerOverloaded, ServerStopping
from trtserve_server.request import InferRequest, InferResponse
from trtserve_server.scheduling.batcher import Batcher, BatcherOptions
from trtserve_server.scheduling.device import Share
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.instance import InlineInstance, Reports
from trtserve_server.scheduling.policy import BatchPolicy
from trtserve_server.scheduling.queue_policy import QueuePolicy
from trtserve_server.scheduling.quiet import ALONE
from trtserve_server.statistics import ModelStatistics


class Context:
    """Gives its input back after `takes_s` of the manual clock; or raises `error`."""

    def __init__(self, reactor):
        self.reactor = reactor
        self.takes_s = 0.001
        self.error = None
        self.threads = []

    def run(self, parts, threads=0):
        self.threads.append(threads)
        self.reactor.time += self.takes_s
        if self.error:
            raise self.error
        return BatchResult({"x": np.concatenate([part["x"] for part in parts])}, 1, 2, 3)

    def close(self):
        pass


class Inline:
    """A batcher whose one instance runs on the reactor's thread, once its caller is known to be alone."""

    def __init__(self, **host):
        self.reactor = ManualReactor()
        self.statistics = ModelStatistics()
        self.context = Context(self.reactor)
        self.host = Host(self.reactor, **host)
        options = BatcherOptions(BatchPolicy(8, 0.0, ()), QueuePolicy(100, 1 << 30), inline_rows=8, threads=(1,))
        self.batcher = Batcher("m", options, self.reactor, self.statistics, self.host.budget)
        reports = Reports(lambda instance, error: None, self.batcher.batch_finished, self.batcher.instance_died)
        self.instance = InlineInstance("m#0", self.host.device("cpu"), lambda: self.context, self.reactor, reports)
        self.instance.start()
        self.batcher.instance_idle(self.instance)
        for _ in range(ALONE):
            self.submit()
            self.reactor.run()

    def submit(self, *, deadline_s=math.inf, size=0):
        outcomes = []
        now = self.reactor.now()
        request = InferRequest(
            {"x": np.ones((1, 2))}, outcomes.append, arrived=now, deadline=now + deadline_s, size_bytes=size
        )
        self.batcher.submit([request])
        self.request = request
        return outcomes


@pytest.fixture
def inline():
    return Inline()


def test_the_answer_is_there_when_submit_returns(inline):
    (answer,) = inline.submit()
    assert isinstance(answer, InferResponse)
    np.testing.assert_array_equal(answer.outputs["x"], np.ones((1, 2)))
    timing = answer.timing
    assert (timing.instance, timing.rows) == ("m#0", 1)
    assert timing.ended - timing.started == pytest.approx(0.001)
    assert answer.queue_s == answer.batch_wait_s == 0
    assert inline.context.threads[-1] == 1
    assert inline.batcher.running == inline.batcher.waiting == inline.host.budget.held == 0


def test_it_is_counted_once_the_loop_comes_round(inline):
    before = inline.statistics.requests.count
    inline.submit()
    inline.reactor.run()
    assert inline.statistics.requests.count == before + 1
    assert inline.statistics.executions == before + 1


def test_a_failing_run_fails_the_request_and_the_next_is_served(inline):
    inline.context.error = ExecutionError("no luck")
    (answer,) = inline.submit()
    assert isinstance(answer, InferenceFailed)
    assert "no luck" in str(answer)
    inline.context.error = None
    (answer,) = inline.submit()
    assert isinstance(answer, InferResponse)


def test_a_deadline_that_a_run_cannot_meet_is_refused_without_a_run(inline):
    inline.reactor.run()
    runs = len(inline.context.threads)
    (answer,) = inline.submit(deadline_s=0.0001)
    assert isinstance(answer, DeadlineExceeded)
    assert len(inline.context.threads) == runs


def test_its_runs_set_the_pace(inline):
    inline.context.takes_s = 0.1
    for _ in range(8):
        inline.submit()
        inline.reactor.run()
    (answer,) = inline.submit(deadline_s=0.05)
    assert isinstance(answer, DeadlineExceeded)


def test_a_full_server_refuses(inline):
    inline.host.budget.take(inline.host.budget._limit, inline.reactor.now())
    inline.reactor.advance(2.0)
    (answer,) = inline.submit(size=1)
    assert isinstance(answer, ServerOverloaded)
    assert answer.retry_after_s == pytest.approx(2.0)  # nothing has been given back in that time


def test_a_closed_model_refuses(inline):
    inline.batcher.drain(lambda: None)
    (answer,) = inline.submit()
    assert isinstance(answer, ServerStopping)


def test_a_caller_who_gives_up_afterwards_changes_nothing(inline):
    (answer,) = inline.submit()
    inline.batcher.cancel(inline.request)
    inline.reactor.run()
    assert isinstance(answer, InferResponse)
    assert RequestCancelled.reason not in inline.statistics.failures


def test_a_device_with_no_room_makes_it_wait_like_everyone():
    inline = Inline(max_running=1)
    device = inline.host.device("cpu")
    other = Share(lambda: None)
    device.start(other, 0)
    outcomes = inline.submit()
    inline.reactor.run()
    assert not outcomes
    device.end(other, 0, 0.001)
    inline.reactor.run()
    assert isinstance(outcomes[0], InferResponse)


def test_the_log_says_that_the_caller_was_alone(inline, caplog):
    caplog.set_level(logging.DEBUG, logger="trtserve_server.scheduling")
    inline.submit()
    assert "m: 1 rows of 1 requests with 1 threads on the loop (alone); 0 requests still wait" in caplog.text
