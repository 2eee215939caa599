"""Levels, timeouts and bounds of a queue: the policy as tables, and what the queue makes of it."""

import math
import tracemalloc

import pytest

from trtserve_server.errors import QueueFull
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.queue import RequestQueue
from trtserve_server.scheduling.queue_policy import LevelPolicy, QueuePolicy

ROOMY = {"max_requests": 1000, "max_bytes": 1 << 30}


def make_request(name="", *, priority=0, deadline=math.inf, wait_limit_s=math.inf, size=0, arrived=0.0):
    return InferRequest(
        {"name": name},
        lambda outcome: None,
        arrived=arrived,
        deadline=deadline,
        priority=priority,
        wait_limit_s=wait_limit_s,
        size_bytes=size,
    )


def push(queue, *requests):
    for request in requests:
        queue.place(request)
        queue.push(request)


def order(queue):
    return [request.inputs["name"] for request in queue.take(1000).requests]


@pytest.mark.parametrize(
    ("levels", "default", "priority", "level"),
    [
        (0, 1, 0, 1),
        (0, 1, 7, 7),
        (0, 3, 0, 3),
        (3, 2, 0, 2),
        (3, 2, 1, 1),
        (3, 2, 3, 3),
        (3, 2, 4, 2),
    ],
)
def test_the_level_of_a_priority(levels, default, priority, level):
    assert QueuePolicy(**ROOMY, levels=levels, default_level=default).level_of(priority) == level


@pytest.mark.parametrize(
    ("timeout_s", "override", "asked_s", "limit_s"),
    [
        (math.inf, True, math.inf, math.inf),
        (math.inf, True, 2.0, 2.0),
        (5.0, True, 2.0, 2.0),
        (5.0, True, 9.0, 5.0),
        (5.0, False, 2.0, 5.0),
        (math.inf, False, 2.0, math.inf),
    ],
)
def test_a_request_may_shorten_its_timeout_where_it_is_allowed_to(timeout_s, override, asked_s, limit_s):
    assert LevelPolicy(timeout_s=timeout_s, allow_override=override).wait_limit_s(asked_s) == limit_s


def test_lower_numbers_go_first_and_the_default_between():
    queue = RequestQueue(QueuePolicy(**ROOMY, levels=3, default_level=2))
    push(queue, *(make_request(name, priority=level) for name, level in (("c", 3), ("b", 0), ("a", 1), ("d", 9))))
    assert order(queue) == ["a", "b", "d", "c"]


def test_a_level_with_a_bound_refuses_on_its_own_and_says_its_priority():
    policy = QueuePolicy(**ROOMY, levels=2, by_level={2: LevelPolicy(max_requests=1)})
    queue = RequestQueue(policy)
    first = make_request("low", priority=2)
    push(queue, first, make_request("high", priority=1))
    with pytest.raises(QueueFull, match="1 requests of priority 2 wait"):
        push(queue, make_request(priority=2))
    assert len(queue) == 2
    queue.remove(first)
    push(queue, make_request("again", priority=2))
    assert order(queue) == ["high", "again"]


def test_levels_of_which_none_waits_are_forgotten():
    queue = RequestQueue(QueuePolicy(**ROOMY, default=LevelPolicy(timeout_s=5.0)))
    tracemalloc.start()
    try:
        for priority in range(1, 20_001):
            push(queue, make_request(priority=priority))
            queue.take(1)
            queue.next_expiry()
        assert tracemalloc.get_traced_memory()[0] < 100_000  # bytes; 20,000 levels take a megabyte
    finally:
        tracemalloc.stop()


def test_bytes_are_bounded_too_but_one_request_always_fits():
    queue = RequestQueue(QueuePolicy(max_requests=10, max_bytes=100))
    push(queue, make_request(size=500))
    with pytest.raises(QueueFull, match="hold 500 bytes; 1 more would pass max_queue_bytes = 100"):
        push(queue, make_request(size=1))
    queue.take(1)
    push(queue, make_request(size=60), make_request(size=40))
    with pytest.raises(QueueFull):
        push(queue, make_request(size=1))


def test_a_timeout_of_the_level_refuses_and_a_deadline_that_is_earlier_holds():
    queue = RequestQueue(QueuePolicy(**ROOMY, default=LevelPolicy(timeout_s=5.0)))
    timed, urgent = make_request("timed"), make_request("urgent", deadline=2.0)
    push(queue, timed, urgent)
    assert queue.expired(1.9) == []
    assert queue.expired(2.1) == [urgent]
    assert queue.expired(5.1) == [timed]
    assert len(queue) == 0


def test_delay_puts_a_request_behind_its_level_and_before_the_next_one():
    queue = RequestQueue(QueuePolicy(**ROOMY, levels=2, default=LevelPolicy(timeout_s=1.0, delay=True)))
    push(queue, make_request("late", priority=1), make_request("next level", priority=2, arrived=1.0))
    assert queue.expired(1.5) == []
    push(queue, make_request("new", priority=1, arrived=1.5))
    assert len(queue) == 3
    assert order(queue) == ["new", "late", "next level"]
    assert len(queue) == queue.rows == 0


def test_a_delayed_request_is_still_refused_at_its_deadline():
    queue = RequestQueue(QueuePolicy(**ROOMY, default=LevelPolicy(timeout_s=1.0, delay=True)))
    request = make_request(deadline=3.0)
    push(queue, request)
    assert queue.expired(1.5) == []
    assert queue.next_expiry() == pytest.approx(3.0, abs=2e-3)
    assert queue.expired(3.1) == [request]


def test_what_cannot_be_done_before_its_deadline_is_taken_out_as_late_and_leaves_room_for_others():
    queue = RequestQueue(QueuePolicy(**ROOMY))
    tight, loose, free = make_request("t", deadline=1.0), make_request("l", deadline=9.0), make_request("f")
    push(queue, tight, loose, free)
    requests, late, _ = queue.take(2, ends=2.0)
    assert (requests, late) == ([loose, free], [tight])
    assert len(queue) == queue.rows == 0


def test_levels_that_nobody_waits_on_any_more_are_forgotten():
    queue = RequestQueue(QueuePolicy(**ROOMY, default=LevelPolicy(timeout_s=9.0)))
    for level in range(1, 1000):
        push(queue, make_request(priority=level))
        queue.take(1)
    assert queue._by_level == {}


def test_rows_before_a_request_are_those_of_more_urgent_ones():
    queue = RequestQueue(QueuePolicy(**ROOMY))
    push(queue, *(make_request(deadline=float(number)) for number in range(1, 21)))
    request = make_request(deadline=10.5)
    queue.place(request)
    assert queue.rows_before(request) == 10
    other_shape = make_request(deadline=10.5)
    other_shape.batch_key = ((7,),)
    queue.place(other_shape)
    assert queue.rows_before(other_shape) == 20


def test_rows_before_a_request_are_estimated_well_in_a_long_queue():
    queue = RequestQueue(QueuePolicy(max_requests=10_000, max_bytes=1 << 30))
    push(queue, *(make_request(deadline=float(number)) for number in range(5000)))
    request = make_request(deadline=2500.5)
    queue.place(request)
    assert queue.rows_before(request) == pytest.approx(2500, rel=0.3)
