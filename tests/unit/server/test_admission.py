"""Deadlines that cannot be met: the decision as a table, the measured pace, and the forecast of a batcher's parts."""

import math

import pytest

from trtserve_server.errors import ServerOverloaded
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.admission import MARGIN, too_late
from trtserve_server.scheduling.budget import ByteBudget
from trtserve_server.scheduling.expiry import ExpiryIndex
from trtserve_server.scheduling.pace import Pace


@pytest.mark.parametrize(
    ("deadline", "expires", "wait_s", "run_s", "words"),
    [
        (math.inf, math.inf, 99.0, 99.0, ()),
        (10.0, 10.0, 0.0, 0.0, ("had passed before the request was queued",)),
        (math.inf, 9.9, 0.0, 0.0, ("timeout had passed before the request was queued",)),
        (math.inf, 10.0, 0.5, 0.5, ("timeout had passed before the request was queued",)),
        (10.1, 10.1, 0.0, 0.0, ()),
        (10.1, 10.1, 0.0, 0.1, ()),
        (10.1, 10.1, 0.0, 0.09, ()),
        (10.1, 10.1, 0.0, 0.2, ("100 ms are left", "the run of the model would eat the time", "200 ms")),
        (10.1, 10.1, 0.07, 0.05, ("the wait in the queue would eat the time", "84 ms", "50 ms")),
        (10.1, 10.1, 0.5, 0.0, ("100 ms are left", "the wait in the queue would take about 600 ms")),
        (math.inf, 10.2, 0.5, 0.0, ("200 ms are left", "the wait in the queue would take")),
        (math.inf, 10.7, 0.5, 99.0, ()),
        (20.0, 10.7, 0.5, 9.0, ()),
    ],
)
def test_whether_a_request_at_time_10_can_be_answered_in_time(deadline, expires, wait_s, run_s, words):
    refusal = too_late(10.0, deadline, expires, wait_s, run_s)
    assert bool(refusal) == bool(words)
    assert [word for word in words if word not in refusal] == []


def test_the_margin_makes_waits_longer():
    assert MARGIN > 1


def test_the_pace_of_a_run_is_the_median_of_recent_ones_of_its_size_or_of_smaller_ones():
    pace = Pace()
    assert pace.run_s(4) == 0.0
    pace.ran(1, 0.0, 0.5, waiting=False)
    assert pace.run_s(1) == pace.run_s(100) == 0.5
    for seconds in (9.0, 2.0, 3.0):
        pace.ran(8, 0.0, seconds, waiting=False)
    assert (pace.run_s(8), pace.run_s(15), pace.run_s(7), pace.run_s(1)) == (3.0, 3.0, 0.5, 0.5)


def test_a_pace_that_changes_is_followed():
    pace = Pace()
    pace.ran(1, 0.0, 0.001, waiting=False)
    for _ in range(8):
        pace.ran(1, 0.0, 5.0, waiting=False)
    assert pace.run_s(1) == 5.0


def test_a_quick_run_after_a_pause_is_believed_at_once_and_a_slow_one_is_not():
    pace = Pace()
    for number in range(8):
        pace.ran(1, number - 0.5, float(number), waiting=False)
    pace.ran(1, 9.0, 9.001, waiting=False)
    assert pace.run_s(1) == pytest.approx(0.001)
    for number in range(8):
        pace.ran(1, 10.0 + number, 10.001 + number, waiting=False)
    pace.ran(1, 30.0, 35.0, waiting=False)
    assert pace.run_s(1) == pytest.approx(0.001)


def test_seconds_per_row_are_measured_only_while_requests_wait():
    pace = Pace()
    pace.ran(10, 0.0, 1.0, waiting=False)
    pace.ran(10, 50.0, 51.0, waiting=True)
    assert pace.row_s == 0.0
    pace.ran(10, 51.0, 53.0, waiting=True)
    assert pace.row_s == pytest.approx(0.2)
    pace.ran(10, 53.0, 54.0, waiting=False)
    assert 0.1 < pace.row_s < 0.2
    pace.ran(10, 99.0, 100.0, waiting=False)
    assert 0.1 < pace.row_s < 0.2


def test_two_instances_answer_twice_as_fast():
    pace = Pace()
    for number in range(40):  # each run takes 2 s, one ends every second
        pace.ran(10, number - 2.0, float(number), waiting=True)
    assert pace.row_s == pytest.approx(0.1)


def test_instances_that_end_together_are_not_taken_for_one_that_is_slow():
    pace = Pace()
    worst = 0.0
    for wave in range(1, 20):
        for instance in range(100):  # 100 runs of 1 s end within 10 ms
            ended = wave + instance * 1e-4
            pace.ran(1, ended - 1.0, ended, waiting=True)
            worst = max(worst, pace.row_s)
    assert worst < 2 * 0.01
    assert pace.row_s == pytest.approx(0.01, rel=0.2)


def test_one_hold_up_among_many_short_runs_is_not_taken_for_their_pace():
    pace = Pace()
    for number in range(1000):
        pace.ran(32, number * 5e-4, number * 5e-4 + 1e-4, waiting=True)
    assert pace.row_s == pytest.approx(5e-4 / 32, rel=0.01)
    pace.ran(32, 0.7, 0.7001, waiting=True)  # the loop was busy for 0.2 s
    assert pace.row_s < 2 * 5e-4 / 32


def test_a_change_of_pace_is_followed_within_a_few_runs():
    pace = Pace()
    for number in range(50):
        pace.ran(1, number - 1.0, float(number), waiting=True)
    for number in range(50, 60):
        pace.ran(2, number - 1.0, float(number), waiting=True)
    assert pace.row_s == pytest.approx(0.5, rel=0.15)


def test_the_budget_refuses_what_would_pass_its_limit_but_lets_one_request_in():
    budget = ByteBudget(100)
    budget.take(500, 0.0)
    with pytest.raises(ServerOverloaded, match="hold 500 bytes; 1 more would pass max_inflight_bytes = 100"):
        budget.take(1, 0.0)
    budget.give(500)
    budget.take(60, 0.0)
    budget.take(40, 0.0)
    assert budget.held == 100


@pytest.mark.parametrize(
    ("taken_at", "given", "refused_at", "retry_after_s"),
    [
        (0.0, 0, 3.0, 3.0),  # nothing has been given back: as long again
        (0.0, 40, 2.0, 2.0 * 30 / 40),
        (50.0, 40, 52.0, 2.0 * 30 / 40),  # what was before it was empty counts nothing
        (0.0, 40, 1000.0, 1000.0 * 30 / 40),
    ],
)
def test_a_refusal_for_memory_says_when_half_of_it_will_be_given_back(taken_at, given, refused_at, retry_after_s):
    budget = ByteBudget(100)
    budget.take(60 + given, taken_at)
    budget.give(given)
    with pytest.raises(ServerOverloaded) as caught:
        budget.take(50, refused_at)
    assert caught.value.retry_after_s == pytest.approx(retry_after_s)


def test_the_pace_at_which_memory_is_given_back_is_that_of_late():
    budget = ByteBudget(100)
    budget.take(100, 0.0)
    for number in range(100):  # 10 bytes a second for 100 s, then one
        budget.give(10)
        budget.take(10, float(number))
        with pytest.raises(ServerOverloaded):
            budget.take(1, float(number))
    for number in range(100, 200):
        budget.give(1)
        budget.take(1, float(number))
        with pytest.raises(ServerOverloaded) as caught:
            budget.take(1, float(number))
    assert caught.value.retry_after_s == pytest.approx(50.0, rel=0.1)


def expiring(time):
    return InferRequest({}, lambda outcome: None, arrived=0.0, deadline=time)


def test_expired_requests_are_given_within_a_millisecond_and_once():
    index = ExpiryIndex()
    requests = [expiring(time) for time in (1.0, 1.0004, 2.0, 700.0)]
    for request in requests:
        index.add(request)
    assert index.pop(0.999) == []
    assert set(index.pop(1.0015)) == set(requests[:2])
    index.discard(requests[2])
    assert index.pop(2.5) == []
    assert index.next() == pytest.approx(700.0, abs=2e-3)


def test_times_that_are_dropped_again_and_again_do_not_pile_up():
    index = ExpiryIndex()
    for number in range(10_000):
        request = expiring(1000.0 + number)
        index.add(request)
        index.discard(request)
        index.next()
    assert len(index._times) < 200
    assert index.next() == math.inf
