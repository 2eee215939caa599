"""Instances whose context has several batches on their way: the thread, the pool, and the scheduler around them."""

from collections import deque
from queue import SimpleQueue

import numpy as np
import pytest

from tests.support.batcher_rig import Rig
from tests.support.manual_reactor import ManualReactor
from trtserve_engines.engine import BatchResult
from trtserve_engines.errors import ExecutionError
from trtserve_server.errors import InferenceFailed, RequestCancelled
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.pipeline import run_pipelined


class Recorder:
    """A context of depth 2 that writes down what is asked of it; a batch with row 7 cannot be launched, one with row 8
    fails.
    """

    depth = 2

    def __init__(self):
        self.log = []

    def launch(self, parts):
        number = parts[0]["x"][0, 0]
        self.log.append(f"launch {number}")
        if number == 7:
            raise ExecutionError("no launch")
        return number

    def collect(self, number):
        self.log.append(f"collect {number}")
        if number == 8:
            raise ExecutionError("failed on its way")
        return BatchResult({"y": np.full((1, 1), number)}, 0, 0, 0)


def batch_of(number):
    return Batch([InferRequest({"x": np.full((1, 1), number)}, lambda outcome: None, arrived=0.0)])


def run_all(numbers, clock=None):
    context, inbox, reports = Recorder(), SimpleQueue(), []
    for number in numbers:
        inbox.put(batch_of(number))
    inbox.put(None)
    times = iter(clock) if clock else None
    now = (lambda: next(times)) if times else (lambda: 0.0)
    run_pipelined(context, inbox, lambda *report: reports.append(report), now)
    return context.log, reports


def test_the_next_batch_is_launched_before_the_first_is_collected_and_no_more_than_the_depth():
    log, reports = run_all([1, 2, 3])
    assert log == ["launch 1", "launch 2", "collect 1", "launch 3", "collect 2", "collect 3"]
    assert [int(outcome.outputs["y"][0, 0]) for _, outcome, _, _ in reports] == [1, 2, 3]


def test_a_batch_begins_with_its_launch_or_with_the_end_of_the_one_before():
    _, reports = run_all([1, 2], clock=[10.0, 11.0, 15.0, 18.0])
    assert [(start, end) for _, _, start, end in reports] == [(10.0, 15.0), (15.0, 18.0)]


def test_what_fails_at_its_launch_or_on_its_way_fails_alone():
    _, reports = run_all([1, 7, 8, 2])
    outcomes = {int(batch.parts[0]["x"][0, 0]): outcome for batch, outcome, _, _ in reports}
    assert {number for number, outcome in outcomes.items() if isinstance(outcome, ExecutionError)} == {7, 8}
    assert {number for number, outcome in outcomes.items() if isinstance(outcome, BatchResult)} == {1, 2}


class PipelinedInstance:
    """An Instance of capacity 3 that a test finishes by hand, batch by batch."""

    capacity = 3

    def __init__(self, rig):
        self.name = "pipelined"
        self.device = rig.host.device("gpu:0")
        self.idle_since = 0.0
        self.held = deque()
        self.rows = []
        self.stopped = False
        self._rig = rig
        self._ended = 0.0
        rig.batcher.instance_idle(self)
        rig.reactor.run()

    def run(self, batch):
        self.held.append(batch)
        self.rows.append(batch.rows)

    def stop(self):
        self.stopped = True

    def finish(self, place=0, outcome=None):
        batch = self.held[place]
        del self.held[place]
        if outcome is None:
            outputs = {name: np.concatenate([part[name] for part in batch.parts]) for name in batch.parts[0]}
            outcome = BatchResult(outputs, 0, 0, 0)
        started, self._ended = max(batch.cut, self._ended), self._rig.reactor.now()
        self._rig.batcher.batch_finished(self, batch, outcome, started, self._ended)
        self._rig.reactor.run()


@pytest.fixture
def rig():
    return Rig(max_rows=2, instances=0, run_timeout_s=5.0)


def submit(rig, *values):
    for value in values:
        rig.submit(value)
        rig.reactor.run()


def test_a_busy_instance_gets_full_batches_behind_its_own_and_no_others(rig):
    instance = PipelinedInstance(rig)
    submit(rig, 0, 1, 2, 3)
    assert instance.rows == [1, 2]
    assert rig.batcher.waiting == 1
    instance.finish()
    assert instance.rows == [1, 2], "what is not full waits as long as something runs"
    instance.finish()
    assert instance.rows == [1, 2, 1]
    instance.finish()
    assert all(rig.answered(value) for value in range(4))


def test_no_more_is_held_than_the_instance_can_take(rig):
    instance = PipelinedInstance(rig)
    submit(rig, *range(12))
    assert instance.rows == [1, 2, 2]
    assert rig.batcher.waiting == 7
    instance.finish()
    assert instance.rows == [1, 2, 2, 2]


def test_an_idle_instance_goes_before_one_that_runs_something(rig):
    instances = [PipelinedInstance(rig) for _ in range(2)]
    submit(rig, 0, 1)
    assert [instance.rows for instance in instances] == [[1], [1]]
    submit(rig, 2, 3, 4, 5)
    assert [instance.rows for instance in instances] == [[1, 2], [1, 2]]


def test_a_batch_that_fails_at_its_launch_may_end_before_the_one_in_front(rig):
    instance = PipelinedInstance(rig)
    submit(rig, 0, 1, 2)
    instance.finish(place=1, outcome=ExecutionError("no launch"))
    assert rig.failed(1, InferenceFailed)
    instance.finish()
    assert rig.answered(0)
    submit(rig, 3)
    assert instance.rows == [1, 2, 1]


def test_the_time_of_a_batch_behind_another_begins_with_the_end_of_that(rig):
    instance = PipelinedInstance(rig)
    submit(rig, 0, 1, 2)
    rig.reactor.advance(4.0)
    instance.finish()
    rig.reactor.advance(4.0)
    assert 1 not in rig.outcomes
    rig.reactor.advance(1.5)
    assert rig.failed(1, InferenceFailed)


def test_all_that_a_hanging_instance_holds_fails_and_what_it_brings_later_is_dropped(rig):
    instance = PipelinedInstance(rig)
    lost = []
    rig.batcher.on_lost = lambda *what: lost.append(what)
    submit(rig, 0, 1, 2)
    rig.reactor.advance(6.0)
    assert all(rig.failed(value, InferenceFailed) for value in range(3))
    assert len(lost) == 1
    assert rig.batcher.running == 0
    instance.finish()
    assert instance.stopped
    submit(rig, 3)
    assert instance.rows == [1, 2], "it is given nothing more"


def test_a_request_that_is_cancelled_in_a_batch_behind_another_is_not_answered_and_its_mates_are(rig):
    instance = PipelinedInstance(rig)
    submit(rig, 0)
    requests = [rig.submit(value) for value in (1, 2)]
    rig.reactor.run()
    assert instance.rows == [1, 2]
    rig.batcher.cancel(requests[0])
    assert rig.failed(1, RequestCancelled)
    instance.finish()
    instance.finish()
    assert rig.answered(0)
    assert rig.answered(2)
    assert len(rig.outcomes[1]) == 1
    assert rig.host.budget.held == 0


def two_models_on_a_device_that_runs_one():
    reactor = ManualReactor()
    host = Host(reactor, max_running=1)
    rigs = [Rig(max_rows=2, instances=0, host=host, reactor=reactor) for _ in range(2)]
    return rigs, [PipelinedInstance(rig) for rig in rigs]


def test_what_waits_behind_a_running_batch_does_not_count_as_running():
    (rig, _), (instance, _) = two_models_on_a_device_that_runs_one()
    submit(rig, *range(5))
    assert instance.rows == [1, 2, 2]
    assert instance.device.running == 1
    for _ in range(3):
        instance.finish()
    assert instance.device.running == 0
    assert all(rig.answered(value) for value in range(5))


def test_nothing_is_put_behind_a_running_batch_while_another_model_waits_for_the_device():
    (busy, other), (instance, waiting) = two_models_on_a_device_that_runs_one()
    submit(busy, *range(5))
    submit(other, 0)
    assert waiting.rows == []
    submit(busy, *range(5, 9))
    for _ in range(3):
        busy.reactor.advance(1.0)
        instance.finish()
    assert instance.rows == [1, 2, 2], "it was given more although the other waits"
    assert waiting.rows == [1]
    waiting.finish()
    assert instance.rows == [1, 2, 2, 2, 2]


def test_models_that_pipeline_share_the_device_by_time():
    rigs, instances = two_models_on_a_device_that_runs_one()
    for rig in rigs:
        submit(rig, *range(60))
    ran = [0, 0]
    for _ in range(30):
        (number,) = [number for number, instance in enumerate(instances) if instance.held]
        rigs[0].reactor.advance(1.0)
        instances[number].finish()
        rigs[0].reactor.run()
        ran[number] += 1
    assert abs(ran[0] - ran[1]) <= 3
