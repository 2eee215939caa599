"""Batches of few rows are run on the reactor's thread, larger ones by the instance: one queue, and the same rules."""

import pytest

from tests.support.batcher_rig import Rig
from tests.support.manual_reactor import ManualReactor
from trtserve_engines.errors import ExecutionError
from trtserve_server.errors import DeadlineExceeded, InferenceFailed, RequestCancelled, ServerStopping
from trtserve_server.scheduling.device import Share
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.quiet import WORTH_ROWS, gathers


@pytest.mark.parametrize(
    ("inline_rows", "max_rows", "gathered"),
    [(0, 32, False), (1, 32, False), (WORTH_ROWS - 1, 32, False), (WORTH_ROWS, 32, True), (2, 2, True), (1, 1, False)],
)
def test_who_waits_for_the_loop_to_be_quiet(inline_rows, max_rows, gathered):
    assert gathers(inline_rows, max_rows) == gathered


@pytest.fixture
def rig():
    return Rig(max_rows=8, inline_rows=2, threads=(1, 4), run_timeout_s=10.0)


def test_rows_decide_where_a_batch_is_run(rig):
    (instance,) = rig.instances
    rig.submit("small", rows=2)
    assert not rig.outcomes  # not yet: others may be on their way
    rig.reactor.run()
    assert rig.answered("small", rows=2)
    rig.submit("large", rows=3)
    rig.reactor.run()
    assert ([batch.rows for batch in instance.here], [batch.rows for batch in instance.batches]) == ([2], [3])
    instance.finish()
    assert rig.answered("large", rows=3)
    assert rig.statistics.executions == 2


def test_it_is_the_batch_that_counts_and_not_the_request(rig):
    for value in range(3):
        rig.submit(value)
    rig.reactor.run()
    rig.instances[0].finish()
    assert all(rig.answered(value) for value in range(3))
    assert not rig.instances[0].here


def test_a_run_here_has_the_fewest_threads(rig):
    rig.submit("small")
    rig.submit("large", rows=8, key=((8,),))
    rig.reactor.run()
    assert rig.instances[0].here[0].threads == 1


def test_what_one_run_was_for_leaves_nothing_behind(rig):
    rig.submit("small", size_bytes=7)
    assert rig.host.budget.held == 7
    rig.reactor.run()
    assert rig.batcher.running == rig.batcher.waiting == rig.host.budget.held == 0
    assert not rig.reactor.timers  # nothing that a watchdog would look for


def test_small_ones_wait_while_the_only_instance_runs_a_large_one(rig):
    rig.submit("large", rows=8)
    rig.reactor.run()
    rig.submit("small")
    rig.reactor.run()
    assert "small" not in rig.outcomes
    rig.instances[0].finish()
    assert rig.answered("small") and rig.answered("large", rows=8)


def test_an_idle_instance_runs_small_ones_beside_a_large_one():
    rig = Rig(max_rows=8, inline_rows=2, instances=2)
    rig.submit("large", rows=8)
    rig.reactor.run()
    rig.submit("small")
    rig.reactor.run()
    assert rig.answered("small") and "large" not in rig.outcomes


def test_the_loop_takes_a_turn_between_two_runs(rig):
    order = []
    for key in (1, 2):
        rig.submit(key, key=((key,),))
    rig.batcher._reactor.soon(lambda: order.append(len(rig.instances[0].here)))  # behind the first look at the queue
    rig.reactor.run()
    assert order == [1]
    assert rig.answered(1) and rig.answered(2)


def test_requests_whose_time_is_short_are_refused_as_ever(rig):
    rig.instances[0].here_s = 0.5
    rig.submit("first")
    rig.reactor.run()
    rig.submit("late", deadline=rig.reactor.now() + 0.1)
    assert rig.failed("late", DeadlineExceeded)
    rig.submit("in time", deadline=rig.reactor.now() + 1.0)
    rig.reactor.run()
    assert rig.answered("in time")


def test_a_small_one_that_waits_may_be_cancelled_or_expire(rig):
    rig.submit("large", rows=8)
    rig.reactor.run()
    cancelled = rig.submit("cancelled")
    rig.submit("expired", wait_limit_s=0.2)
    rig.batcher.cancel(cancelled)
    rig.reactor.advance(0.3)
    rig.instances[0].finish()
    assert rig.failed("cancelled", RequestCancelled) and rig.failed("expired", DeadlineExceeded)
    assert not rig.instances[0].here


def test_a_run_here_that_fails_fails_its_requests_alone(rig):
    rig.instances[0].here_error = ExecutionError("no luck")
    rig.submit("unlucky")
    rig.reactor.run()
    assert rig.failed("unlucky", InferenceFailed)
    rig.instances[0].here_error = None
    rig.submit("lucky")
    rig.reactor.run()
    assert rig.answered("lucky")


def test_an_instance_that_hangs_runs_nothing_here_either(rig):
    lost = []
    rig.batcher.on_lost = lambda instance, reason: lost.append(instance)
    rig.submit("large", rows=8)
    rig.reactor.run()
    rig.submit("small")
    rig.reactor.advance(11.0)
    assert lost == rig.instances and rig.failed("large", InferenceFailed)
    assert "small" not in rig.outcomes and not rig.instances[0].here


def test_a_drain_ends_with_the_last_small_one(rig):
    drained = []
    rig.submit("small")
    rig.batcher.drain(lambda: drained.append(True))
    assert not drained
    rig.reactor.run()
    assert rig.answered("small") and drained == [True]
    rig.submit("later")
    assert rig.failed("later", ServerStopping)


def test_what_lies_in_place_is_run_alone_and_at_once(rig):
    rig.submit("one", in_place=True)
    rig.submit("other", rows=2, in_place=True)
    assert rig.answered("one") and rig.answered("other", rows=2)
    assert [batch.rows for batch in rig.instances[0].here] == [1, 2]
    rig.reactor.run()
    assert rig.statistics.executions == 2


def test_a_request_to_a_model_without_batches_is_run_at_once():
    rig = Rig(max_rows=1, inline_rows=1)
    rig.submit("one")
    rig.submit("other")
    assert rig.answered("one") and rig.answered("other")


def test_what_lies_in_place_but_is_large_is_run_by_the_instance(rig):
    rig.submit("large", rows=3, in_place=True)
    rig.reactor.run()
    rig.instances[0].finish()
    assert rig.answered("large", rows=3)


def test_what_lies_in_place_waits_behind_those_that_were_there_before(rig):
    rig.submit("first")
    rig.submit("second", in_place=True)
    assert not rig.outcomes
    rig.reactor.run()
    assert list(rig.outcomes) == ["first", "second"]


def test_what_lies_in_place_waits_for_the_device_like_everyone():
    reactor = ManualReactor()
    rig = Rig(max_rows=8, inline_rows=2, reactor=reactor, host=Host(reactor, max_running=1))
    device, other = rig.host.device("cpu"), Share(lambda: None)
    device.start(other, 0)
    rig.submit("one", in_place=True)
    rig.reactor.run()
    assert not rig.outcomes
    device.end(other, 0, 0.001)
    rig.reactor.run()
    assert rig.answered("one")
