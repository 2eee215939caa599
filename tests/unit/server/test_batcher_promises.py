"""What the batcher promises under load: deadlines, overload, hanging and dying instances, shares of a device."""

import logging
import math

import numpy as np
import pytest

from tests.support.batcher_rig import Rig
from tests.support.manual_reactor import ManualReactor
from trtserve_server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotReady,
    QueueFull,
    ServerOverloaded,
)
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.queue_policy import LevelPolicy, QueuePolicy


def run_once(rig, value, seconds, **options):
    """Runs one request in so many seconds, so that the batcher knows what a run takes."""
    rig.submit(value, **options)
    rig.reactor.run()
    rig.reactor.advance(seconds)
    rig.instances[0].finish()
    rig.reactor.run()


def half_run():
    """Six requests, one after another: three were run in 0.1 s each, one runs, two wait."""
    rig = Rig(max_rows=1)
    for value in range(6):
        rig.submit(value)
    rig.reactor.run()
    for _ in range(3):
        rig.reactor.advance(0.1)
        rig.instances[0].finish()
    return rig


# ---- deadlines


def test_a_deadline_shorter_than_a_run_is_refused_at_once_with_both_figures():
    rig = Rig()
    run_once(rig, 0, 0.1)
    rig.submit(1, deadline=rig.reactor.now() + 0.05)
    assert rig.failed(1, DeadlineExceeded)
    assert "the run of the model would eat the time" in str(rig.answer(1))
    assert "50 ms are left" in str(rig.answer(1))


def test_an_idle_instance_runs_what_just_fits():
    rig = Rig()
    for value in range(3):
        run_once(rig, value, 0.1)
    rig.submit(3, deadline=rig.reactor.now() + 0.101)
    rig.reactor.advance(0.1)
    rig.instances[0].finish()
    assert rig.answered(3)


def test_a_timeout_that_is_over_before_the_request_is_queued_is_said_to_be():
    rig = Rig()
    request = InferRequest({}, lambda outcome: outcomes.append(outcome), arrived=-1.0, wait_limit_s=0.5)
    outcomes = []
    rig.batcher.submit([request])
    assert str(outcomes[0]) == "model 'm': the request's timeout had passed before the request was queued"


def test_after_a_while_without_runs_an_idle_instance_tries_again():
    rig = Rig()
    run_once(rig, 0, 0.1)
    rig.reactor.advance(1.5)
    rig.submit(1, deadline=rig.reactor.now() + 0.05)
    rig.reactor.run()
    rig.instances[0].finish()
    assert rig.answered(1)


def test_a_deadline_before_the_end_of_what_runs_is_refused_at_once():
    rig = Rig()
    run_once(rig, 0, 0.1)
    rig.submit(1)
    rig.reactor.run()
    rig.reactor.advance(0.02)
    rig.submit(2, deadline=rig.reactor.now() + 0.15)
    assert rig.failed(2, DeadlineExceeded)
    assert "the run of the model 100 ms" in str(rig.answer(2))
    rig.submit(3, deadline=rig.reactor.now() + 0.25)
    assert 3 not in rig.outcomes


def test_a_deadline_that_the_queue_would_eat_is_refused_at_once():
    rig = half_run()
    assert rig.batcher.waiting == 2
    rig.submit(10, deadline=rig.reactor.now() + 0.1)
    rig.submit(11, deadline=rig.reactor.now() + 60.0)
    assert rig.failed(10, DeadlineExceeded)
    assert "the queue" in str(rig.answer(10))
    assert 11 not in rig.outcomes


@pytest.mark.parametrize("left_s", [(0.1, 60.0, 0.45), (60.0, 0.1, 0.45), (0.45, 0.45, 0.45)])
def test_of_requests_that_come_together_those_are_refused_that_would_be_if_they_came_one_by_one(left_s):
    """0.3 s of runs are before them, 0.1 s each."""
    one_by_one, together = half_run(), half_run()
    for value, left in enumerate(left_s, 10):
        one_by_one.submit(value, deadline=one_by_one.reactor.now() + left)
    outcomes = {}
    together.batcher.submit(
        [
            InferRequest(
                {"x": np.ones((1, 1))},
                lambda outcome, value=value: outcomes.setdefault(value, outcome),
                arrived=together.reactor.now(),
                deadline=together.reactor.now() + left,
            )
            for value, left in enumerate(left_s, 10)
        ]
    )
    refused = {value: str(answer) for value, (answer,) in one_by_one.outcomes.items() if value >= 10}
    assert {value: str(answer) for value, answer in outcomes.items()} == refused
    assert all(isinstance(answer, DeadlineExceeded) for answer in outcomes.values())


def test_a_more_urgent_request_is_not_refused_for_those_that_it_overtakes():
    rig = half_run()
    rig.submit(10, deadline=rig.reactor.now() + 0.25)
    assert 10 not in rig.outcomes
    rig.reactor.advance(0.1)
    rig.instances[0].finish()
    rig.instances[0].finish()
    assert rig.answered(10)


def test_a_timeout_shorter_than_the_wait_is_refused_at_once():
    rig = half_run()
    rig.submit(10, wait_limit_s=0.05)
    assert rig.failed(10, DeadlineExceeded)


def test_what_has_become_too_late_is_not_run_and_its_place_is_taken_by_others():
    rig = Rig(max_rows=2)
    run_once(rig, 0, 0.1)
    run_once(rig, 1, 0.1, rows=2)
    rig.reactor.advance(5)
    rig.submit(2)
    rig.reactor.run()
    rig.submit(3, deadline=rig.reactor.now() + 0.25)
    rig.submit(4)
    rig.submit(5)
    assert 3 not in rig.outcomes
    rig.reactor.advance(0.2)  # the run takes longer than usual
    rig.instances[0].finish()
    assert rig.failed(3, DeadlineExceeded)
    assert "too little for the run" in str(rig.answer(3))
    assert rig.instances[0].batch.rows == 2
    rig.instances[0].finish()
    assert rig.answered(4)
    assert rig.answered(5)


def test_the_delay_is_cut_short_for_a_deadline():
    rig = Rig(delay_s=1.0)
    rig.submit(0, deadline=rig.reactor.now() + 10.0)
    rig.reactor.advance(1.0)
    rig.reactor.advance(0.1)
    rig.instances[0].finish()
    rig.submit(1, deadline=rig.reactor.now() + 0.5)
    rig.reactor.advance(0.3)
    assert rig.instances[0].batch is None
    rig.reactor.advance(0.1)
    assert rig.instances[0].batch is not None
    rig.instances[0].finish()
    assert rig.answered(1)


def test_a_timeout_with_delay_lets_the_request_run_when_nothing_else_waits():
    policy = QueuePolicy(100, 1 << 30, default=LevelPolicy(timeout_s=0.5, delay=True))
    rig = Rig(max_rows=1, queue=policy)
    rig.submit(0)
    rig.reactor.run()
    rig.submit(1)
    rig.reactor.advance(1.0)
    assert 1 not in rig.outcomes
    rig.submit(2)
    for _ in range(3):
        rig.instances[0].finish()
    assert [batch.parts[0]["x"][0, 0] for batch in rig.instances[0].batches] == [0, 2, 1]


def test_a_timeout_with_delay_is_no_reason_to_refuse_however_short_it_is():
    policy = QueuePolicy(100, 1 << 30, default=LevelPolicy(timeout_s=1e-6, delay=True))
    rig = Rig(max_rows=1, queue=policy)
    run_once(rig, 0, 0.1)
    rig.submit(1)
    rig.reactor.run()
    rig.submit(2)
    rig.reactor.advance(0.002)
    rig.submit(3, deadline=rig.reactor.now() + 0.05)
    assert rig.failed(3, DeadlineExceeded)
    for _ in range(2):
        rig.instances[0].finish()
        rig.reactor.run()
    assert rig.answered(1)
    assert rig.answered(2)


# ---- overload


def test_a_refusal_says_when_half_of_what_waits_will_be_gone():
    rig = Rig(max_rows=1, max_queue_size=4)
    for value in range(5):
        rig.submit(value)
        rig.reactor.run()
    for _ in range(3):
        rig.reactor.advance(0.1)
        rig.instances[0].finish()
    for value in (5, 6, 7):
        rig.submit(value)
    rig.submit(8)
    assert rig.failed(8, QueueFull)
    assert rig.answer(8).retry_after_s == pytest.approx(4 * 0.1 / 2)


def test_a_refusal_before_anything_was_measured_in_a_crowd_waits_for_what_runs():
    rig = Rig(max_rows=1, max_queue_size=2)
    run_once(rig, 0, 0.5)
    for value in range(1, 4):
        rig.submit(value)
        rig.reactor.run()
    rig.reactor.advance(0.1)
    rig.submit(4)
    assert rig.failed(4, QueueFull)
    assert rig.answer(4).retry_after_s == pytest.approx(0.4)


def test_a_refusal_while_a_run_takes_longer_than_known_waits_as_long_again():
    rig = Rig(max_rows=1, max_queue_size=1)
    for value in range(2):
        rig.submit(value)
        rig.reactor.run()
    rig.reactor.advance(0.3)
    rig.submit(2)
    assert rig.answer(2).retry_after_s == pytest.approx(0.3)


def test_requests_over_the_budget_of_the_server_are_refused_until_answers_have_gone_out():
    reactor = ManualReactor()
    host = Host(reactor, max_inflight_bytes=100)
    one, other = (Rig(host=host, reactor=reactor) for _ in range(2))
    one.submit(1, size_bytes=60)
    other.submit(2, size_bytes=60)
    assert other.failed(2, ServerOverloaded)
    reactor.run()
    other.submit(3, size_bytes=40)
    cancelled = other.submit(4, size_bytes=1)
    assert other.failed(4, ServerOverloaded)
    other.batcher.cancel(cancelled)
    reactor.run()
    one.instances[0].finish()
    other.submit(5, size_bytes=60)
    reactor.run()
    assert 5 not in other.outcomes
    assert host.budget.held == 100


@pytest.mark.parametrize("end", ["answer", "failure", "cancel", "cancel running", "expiry", "abort", "hang"])
def test_however_a_request_ends_its_bytes_are_given_back(end):
    rig = Rig(run_timeout_s=5.0)
    if end in ("cancel", "expiry", "abort"):
        rig.submit(0)
        rig.reactor.run()
    request = rig.submit(1, size_bytes=10, deadline=2.0 if end == "expiry" else math.inf)
    rig.reactor.run()
    assert rig.host.budget.held == 10
    if end == "abort":
        rig.batcher.abort(ModelNotReady("gone"))
    elif end.startswith("cancel"):
        rig.batcher.cancel(request)
    elif end in ("expiry", "hang"):
        rig.reactor.advance(6.0 if end == "hang" else 3.0)
    if end in ("answer", "failure", "cancel running"):
        rig.instances[0].finish(RuntimeError("x") if end == "failure" else None)
    assert rig.host.budget.held == 0
    assert len(rig.outcomes[1]) == 1


# ---- instances that hang or die


def test_a_run_that_hangs_fails_alone_and_its_instance_is_replaced(caplog):
    rig = Rig(instances=2, run_timeout_s=5.0)
    lost = []
    rig.batcher.on_lost = lambda instance, reason: lost.append((instance, reason))
    rig.submit(1)
    rig.reactor.run()
    hanging = next(instance for instance in rig.instances if instance.batch)
    rig.reactor.advance(3.0)
    rig.submit(2)
    rig.reactor.run()
    rig.reactor.advance(2.5)
    assert rig.failed(1, InferenceFailed)
    assert "did not end within run_timeout_s = 5" in str(rig.answer(1))
    assert [instance for instance, _ in lost] == [hanging]
    assert rig.batcher.running == 1
    healthy = next(instance for instance in rig.instances if instance is not hanging)
    healthy.finish()
    assert rig.answered(2)


def test_what_a_lost_instance_still_brings_is_dropped_and_it_is_told_to_end():
    rig = Rig(run_timeout_s=5.0)
    rig.submit(1)
    rig.reactor.run()
    rig.reactor.advance(6.0)
    rig.instances[0].finish()
    assert rig.instances[0].stopped
    assert rig.failed(1, InferenceFailed)
    rig.submit(2)
    rig.reactor.run()
    assert rig.instances[0].batch is None


def test_two_hanging_runs_are_each_noticed_in_their_own_time():
    rig = Rig(instances=2, max_rows=1, run_timeout_s=5.0)
    rig.submit(1)
    rig.reactor.run()
    rig.reactor.advance(3.0)
    rig.submit(2)
    rig.reactor.run()
    rig.reactor.advance(2.0)
    assert rig.failed(1, InferenceFailed)
    assert 2 not in rig.outcomes
    rig.reactor.advance(3.0)
    assert rig.failed(2, InferenceFailed)


def test_an_instance_that_dies_fails_its_batch_and_is_replaced(caplog):
    rig = Rig()
    lost = []
    rig.batcher.on_lost = lambda instance, reason: lost.append(reason)
    rig.submit(1)
    rig.reactor.run()
    rig.batcher.instance_died(rig.instances[0], SystemExit(3))
    assert rig.failed(1, InferenceFailed)
    assert lost == ["SystemExit ended the thread that ran it"]
    assert "died" in caplog.text


def test_a_batcher_without_instances_left_fails_what_waits_and_refuses_what_comes():
    rig = Rig()
    rig.submit(0)
    rig.reactor.run()
    rig.submit(1)
    rig.batcher.fail("every instance hangs")
    rig.submit(2)
    assert rig.failed(1, ModelNotReady)
    assert rig.failed(2, ModelNotReady)
    assert "every instance hangs" in str(rig.answer(2))


# ---- devices


def test_a_lone_run_gets_all_cores_and_one_beside_another_gets_one():
    rig = Rig(instances=2, threads=(1, 4))
    rig.host.device("cpu")._cores = 4
    rig.submit(1)
    rig.reactor.run()
    rig.submit(2)
    rig.reactor.run()
    assert [instance.batch.threads for instance in reversed(rig.instances)] == [4, 1]


def test_models_on_one_device_take_turns_where_its_limit_is_reached():
    reactor = ManualReactor()
    host = Host(reactor, max_running=1)
    rigs = [Rig(host=host, reactor=reactor, max_rows=1) for _ in range(2)]
    for rig in rigs:
        for value in range(5):
            rig.submit(value)
    reactor.run()
    turns = []
    for _ in range(10):
        (rig,) = [rig for rig in rigs if rig.instances[0].batch]
        turns.append(rigs.index(rig))
        reactor.advance(1.0)
        rig.instances[0].finish()
        reactor.run()
    assert [sorted(turns[first : first + 2]) for first in range(0, 10, 2)] == [[0, 1]] * 5


def test_a_batch_says_how_many_threads_it_got_at_debug(caplog):
    with caplog.at_level(logging.DEBUG):
        rig = Rig(threads=(1, 2))
        rig.submit(1)
        rig.reactor.run()
    assert "with 2 threads" in caplog.text or "with 1 threads" in caplog.text


# ---- timing


def test_the_timing_tells_the_wait_for_a_turn_from_the_wait_for_company():
    rig = Rig(delay_s=1.0)
    rig.submit(0)
    rig.reactor.advance(1.0)
    rig.submit(1)  # waits 0.5 s for the instance, then 0.5 s for others
    rig.reactor.advance(0.5)
    rig.instances[0].finish()
    rig.reactor.advance(0.5)
    rig.reactor.advance(0.25)
    rig.instances[0].finish()
    first, second = rig.answer(0), rig.answer(1)
    assert (first.batch_wait_s, first.queue_s) == (1.0, 0.0)
    assert (second.batch_wait_s, second.queue_s) == (0.5, 0.5)
    assert (second.timing.instance, second.timing.rows) == ("i0", 1)
    assert second.timing.ended - second.timing.started == 0.25


def test_the_time_after_a_backlog_that_was_given_up_is_nobodys_pace():
    rig = Rig(max_rows=8, delay_s=10.0)
    rig.submit("first", rows=8, key=((1,),))
    left = rig.submit("left", key=((2,),))
    rig.reactor.run()
    rig.instances[0].finish()  # while another one waits for company
    rig.batcher.cancel(left)
    rig.reactor.advance(100.0)
    rig.submit("second", rows=8)
    rig.reactor.run()
    rig.instances[0].finish()
    rig.submit("before", priority=1)
    rig.submit("hurried", priority=2, deadline=rig.reactor.now() + 5.0)
    assert "hurried" not in rig.outcomes
    rig.submit("full", rows=7)
    rig.reactor.run()
    rig.instances[0].finish()
    assert rig.answered("before")
