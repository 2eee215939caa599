"""The batcher on a manual clock: batching, delays, cancellation, deadlines, failures, drain."""

import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.support.batcher_rig import Rig
from trtserve_engines.engine import BatchResult
from trtserve_engines.errors import ExecutionError, OutOfMemoryError
from trtserve_server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    OutOfMemory,
    QueueFull,
    RequestCancelled,
    RequestError,
    ServerStopping,
)
from trtserve_server.scheduling.queue_policy import LevelPolicy, QueuePolicy


def test_a_lone_request_runs_at_once():
    rig = Rig()
    rig.submit(1)
    rig.reactor.run()
    rig.instances[0].finish()
    assert rig.answered(1)


def test_what_arrives_in_one_turn_of_the_loop_shares_a_batch():
    rig = Rig()
    for value in range(5):
        rig.submit(value)
    rig.reactor.run()
    rig.instances[0].finish()
    assert [batch.rows for batch in rig.instances[0].batches] == [5]
    assert all(rig.answered(value) for value in range(5))


def test_the_pending_batch_grows_while_no_instance_is_idle():
    rig = Rig(max_rows=4)
    for value in range(7):
        rig.submit(value)
        rig.reactor.run()
    for _ in range(3):
        rig.instances[0].finish()
    assert [batch.rows for batch in rig.instances[0].batches] == [1, 4, 2]
    assert all(rig.answered(value) for value in range(7))


def test_every_request_gets_its_own_rows():
    rig = Rig()
    rig.submit(1, rows=3)
    rig.submit(2, rows=1)
    rig.submit(3, rows=2)
    rig.reactor.run()
    rig.instances[0].finish()
    assert rig.answered(1, 3)
    assert rig.answered(2, 1)
    assert rig.answered(3, 2)


def test_an_idle_instance_waits_for_the_delay_counted_from_the_oldest_request():
    rig = Rig(delay_s=1.0)
    rig.submit(1)
    rig.reactor.advance(0.5)
    rig.submit(2)
    rig.reactor.advance(0.25)
    assert rig.instances[0].batch is None
    rig.reactor.advance(0.25)
    assert rig.instances[0].batch.rows == 2


def test_a_full_batch_does_not_wait_for_the_delay():
    rig = Rig(delay_s=1.0, max_rows=2)
    rig.submit(1)
    rig.submit(2)
    rig.reactor.run()
    assert rig.instances[0].batch.rows == 2
    assert rig.reactor.timers == []


def test_a_preferred_size_is_cut_as_soon_as_it_is_there():
    rig = Rig(delay_s=1.0, preferred=(2,))
    for value in range(3):
        rig.submit(value)
    rig.reactor.run()
    assert rig.instances[0].batch.rows == 2


def test_the_delay_of_one_shape_does_not_hold_up_another_that_is_full():
    rig = Rig(delay_s=1.0, max_rows=2)
    rig.submit(1, key=((4,),))
    rig.submit(2, key=((5,),))
    rig.submit(3, key=((5,),))
    rig.reactor.run()
    assert rig.instances[0].batch.rows == 2
    rig.instances[0].finish()
    rig.reactor.advance(1.0)
    rig.instances[0].finish()
    assert all(rig.answered(value) for value in (1, 2, 3))


def test_two_instances_work_at_the_same_time():
    rig = Rig(instances=2)
    rig.submit(1)
    rig.reactor.run()
    rig.submit(2)
    rig.reactor.run()
    assert [instance.batch.rows for instance in rig.instances] == [1, 1]


def test_a_cancelled_waiting_request_leaves_before_the_batch_is_cut():
    rig = Rig()
    rig.submit(0)
    rig.reactor.run()
    requests = [rig.submit(value) for value in (1, 2, 3)]
    rig.batcher.cancel(requests[1])
    rig.instances[0].finish()
    assert rig.instances[0].batch.rows == 2
    rig.instances[0].finish()
    assert rig.answered(1)
    assert rig.failed(2, RequestCancelled)
    assert rig.answered(3)


def test_a_request_cancelled_mid_batch_does_not_disturb_its_mates():
    rig = Rig()
    requests = [rig.submit(value) for value in (1, 2, 3, 4)]
    rig.reactor.run()
    rig.batcher.cancel(requests[1])
    rig.instances[0].finish()
    assert rig.failed(2, RequestCancelled)
    assert all(rig.answered(value) for value in (1, 3, 4))
    assert rig.statistics.failures == {"CANCELED": 1}
    assert rig.statistics.requests.count == 3


def test_cancelling_twice_or_after_the_answer_changes_nothing():
    rig = Rig()
    request = rig.submit(1)
    rig.reactor.run()
    rig.instances[0].finish()
    rig.batcher.cancel(request)
    rig.batcher.cancel(request)
    assert rig.answered(1)
    assert not rig.statistics.failures


def test_a_request_that_expires_in_the_queue_is_answered_at_its_deadline():
    rig = Rig()
    rig.submit(0)
    rig.reactor.run()
    rig.submit(1, deadline=2.0)
    rig.reactor.advance(1.9)
    assert 1 not in rig.outcomes
    rig.reactor.advance(0.101)
    assert rig.failed(1, DeadlineExceeded)
    rig.instances[0].finish()
    assert rig.instances[0].batch is None


def test_a_request_past_its_deadline_is_refused_at_once():
    rig = Rig()
    rig.reactor.advance(5.0)
    rig.submit(1, deadline=5.0)
    assert rig.failed(1, DeadlineExceeded)


def test_a_full_queue_refuses_at_once_and_takes_again_later():
    rig = Rig(max_queue_size=2)
    rig.submit(0)
    rig.reactor.run()
    rig.submit(1)
    rig.submit(2)
    rig.submit(3)
    assert rig.failed(3, QueueFull)
    rig.instances[0].finish()
    rig.submit(4)
    rig.instances[0].finish()
    rig.instances[0].finish()
    assert all(rig.answered(value) for value in (0, 1, 2, 4))


def test_a_failing_batch_fails_its_requests_alone(caplog):
    rig = Rig()
    rig.submit(1)
    rig.reactor.run()
    rig.submit(2)
    with caplog.at_level(logging.WARNING):
        rig.instances[0].finish(ExecutionError("index 9 is out of range"))
    assert rig.failed(1, InferenceFailed)
    assert "index 9 is out of range" in str(rig.answer(1))
    assert "index 9" in caplog.text
    rig.instances[0].finish()
    assert rig.answered(2)


@pytest.mark.parametrize("error", [OutOfMemoryError("no room"), MemoryError("no room"), MemoryError()])
def test_a_batch_without_memory_says_what_to_do(caplog, error):
    rig = Rig()
    rig.submit(1)
    rig.reactor.run()
    rig.submit(2)
    with caplog.at_level(logging.WARNING):
        rig.instances[0].finish(error)
    assert rig.failed(1, OutOfMemory)
    reason = str(error) or "MemoryError"
    assert f"too little memory for the run: {reason}; send less at once" in str(rig.answer(1))
    assert reason in caplog.text and "Traceback" not in caplog.text
    rig.instances[0].finish()
    assert rig.answered(2)


def test_an_unexpected_exception_is_told_in_the_log_and_not_to_the_caller(caplog):
    rig = Rig()
    rig.submit(1)
    rig.reactor.run()
    rig.instances[0].finish(RuntimeError("secret detail"))
    assert "secret detail" not in str(rig.answer(1))
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), ()])
def test_outputs_with_the_wrong_number_of_rows_are_nobodys(shape):
    rig = Rig()
    rig.submit(1)
    rig.submit(2)
    rig.reactor.run()
    rig.instances[0].finish(BatchResult({"x": np.zeros(shape)}, 0, 0, 0))
    assert rig.failed(1, InferenceFailed)
    assert str(list(shape)) in str(rig.answer(2))


def test_drain_refuses_what_is_new_and_ends_when_all_is_answered():
    rig = Rig()
    rig.submit(1)
    rig.reactor.run()
    rig.submit(2)
    drained = []
    rig.batcher.drain(lambda: drained.append(True))
    rig.submit(3)
    assert rig.failed(3, ServerStopping)
    rig.instances[0].finish()
    assert not drained
    rig.instances[0].finish()
    assert drained == [True]
    assert rig.answered(1)
    assert rig.answered(2)


def test_drain_of_an_idle_batcher_ends_at_once():
    drained = []
    Rig().batcher.drain(lambda: drained.append(True))
    assert drained == [True]


def test_statistics_hold_the_sums_of_rows_runs_and_times():
    rig = Rig()
    rig.submit(0)
    rig.reactor.run()
    rig.submit(1, rows=2)
    rig.submit(2, rows=3)
    rig.reactor.advance(0.5)
    rig.instances[0].finish()
    rig.reactor.advance(0.25)
    rig.instances[0].finish()
    statistics = rig.statistics
    assert (statistics.inferences, statistics.executions, statistics.requests.count) == (6, 2, 3)
    assert {rows: phases.compute_ns for rows, phases in statistics.per_batch.items()} == {1: 2, 5: 2}
    assert statistics.queue_ns == 2 * 500_000_000
    assert statistics.success_ns == 500_000_000 + 2 * 750_000_000
    assert statistics.total_s.sum == pytest.approx(2.0)


def test_a_cut_batch_says_why_at_debug(caplog):
    with caplog.at_level(logging.DEBUG):
        rig = Rig(max_rows=2)
        for value in range(3):
            rig.submit(value)
        rig.reactor.run()
    assert "2 rows of 2 requests to i0 (full); 1 requests still wait" in caplog.text


def test_a_batch_that_is_cut_short_says_that_the_next_request_does_not_fit(caplog):
    with caplog.at_level(logging.DEBUG):
        rig = Rig(max_rows=4)
        for value in range(2):
            rig.submit(value, rows=3)
        rig.reactor.run()
        rig.instances[0].finish()
    assert "3 rows of 1 requests to i0 (full, the next request does not fit); 1 requests still wait" in caplog.text
    assert "3 rows of 1 requests to i0 (instance idle); 0 requests still wait" in caplog.text


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.integers(1, 4),
            st.sampled_from([0.5, 2.0, math.inf]),
            st.integers(0, 1),
            st.integers(0, 2),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("finish"), st.integers(0, 2)),
        st.tuples(st.just("fail"), st.integers(0, 2)),
        st.tuples(st.just("advance"), st.sampled_from([0.1, 0.7])),
    ),
    max_size=60,
)


PLAIN = QueuePolicy(20, 1 << 30)
LEVELLED = QueuePolicy(
    20,
    1 << 30,
    levels=2,
    default=LevelPolicy(timeout_s=0.6, delay=True),
    by_level={2: LevelPolicy(max_requests=3, timeout_s=0.2)},
)


@settings(max_examples=250, deadline=None)
@given(steps, st.sampled_from([0.0, 0.3]), st.integers(1, 3), st.sampled_from([PLAIN, LEVELLED]))
def test_every_request_is_completed_exactly_once_and_right(script, delay_s, instances, policy):
    """No request is lost, answered twice or split, no batch is too large, work is conserved, order is kept."""
    rig = Rig(max_rows=4, delay_s=delay_s, instances=instances, queue=policy)
    requests = {}
    for step in script:
        if step[0] == "submit":
            value = len(requests)
            deadline = rig.reactor.now() + step[2]
            requests[value] = rig.submit(value, rows=step[1], deadline=deadline, key=((step[3],),), priority=step[4])
            rig.reactor.run()
        elif step[0] == "cancel" and requests:
            rig.batcher.cancel(requests[step[1] % len(requests)])
        elif step[0] in ("finish", "fail"):
            instance = rig.instances[step[1] % instances]
            if instance.batch:
                instance.finish(ExecutionError("scripted") if step[0] == "fail" else None)
        elif step[0] == "advance":
            rig.reactor.advance(step[1])
        if delay_s == 0 and rig.batcher.waiting:
            assert all(instance.batch for instance in rig.instances), "work waits while an instance is idle"
    finish_all(rig)
    assert set(rig.outcomes) == set(requests)
    for value, request in requests.items():
        outcome = rig.answer(value)
        assert isinstance(outcome, RequestError) or rig.answered(value, request.rows)
    for instance in rig.instances:
        for batch in instance.batches:
            assert batch.rows <= 4
            assert len({request.batch_key for request in batch.requests}) == 1
    assert rig.batcher.waiting == rig.batcher.running == 0
    assert rig.host.budget.held == 0
    if policy is PLAIN:  # else some were put behind those that came later
        assert_order_is_kept(rig, list(requests.values()))


def assert_order_is_kept(rig, arrivals):
    """Of requests alike in shape, priority and deadline, none is run before one that came earlier."""
    latest = {}
    for batch in rig.reactor.runs:
        for request in batch.requests:
            alike = (request.batch_key, request.level, request.deadline)
            place = arrivals.index(request)
            assert place > latest.get(alike, -1)
            latest[alike] = place


def finish_all(rig):
    rig.reactor.advance(1.0)
    while any(instance.batch for instance in rig.instances):
        for instance in rig.instances:
            if instance.batch:
                instance.finish()
        rig.reactor.advance(1.0)
