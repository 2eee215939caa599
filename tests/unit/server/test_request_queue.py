"""The request queue against a plain model of what it promises, and its order, bounds and memory."""

import gc
import math

import pytest
from hypothesis import given, settings, strategies as st

from trtserve_server.errors import QueueFull, RequestCancelled
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.batch import resolve
from trtserve_server.scheduling.queue import RequestQueue
from trtserve_server.scheduling.queue_policy import QueuePolicy


def make_request(rows=1, *, priority=1, deadline=math.inf, key=(), arrived=0.0):
    request = InferRequest({}, lambda outcome: None, arrived=arrived, deadline=deadline, priority=priority)
    request.rows = rows
    request.batch_key = key
    return request


def make_queue(max_requests):
    return RequestQueue(QueuePolicy(max_requests, max_bytes=1 << 30))


def push(queue, *requests):
    for request in requests:
        queue.place(request)
        queue.push(request)


def take(queue, *arguments):
    return queue.take(*arguments).requests


def cancel(queue, request):
    resolve(request, RequestCancelled("gone"))
    queue.remove(request)


def drain(queue, max_rows=1):
    taken = []
    while len(queue):
        taken += take(queue, max_rows)
    return taken


def test_order_is_priority_then_deadline_then_arrival():
    late = make_request(priority=1, deadline=9.0)
    soon = make_request(priority=1, deadline=5.0)
    first, second = make_request(priority=1), make_request(priority=1)
    low = make_request(priority=2, deadline=1.0)
    queue = make_queue(10)
    for request in (low, first, second, late, soon):
        push(queue, request)
    assert drain(queue) == [soon, late, first, second, low]


def test_a_batch_takes_whole_requests_up_to_the_limit():
    queue = make_queue(10)
    requests = [make_request(rows) for rows in (2, 3, 4)]
    for request in requests:
        push(queue, request)
    assert queue.head()[1:3] == (9, 0.0)
    assert take(queue, 6) == requests[:2]
    assert not any(request.waiting for request in requests[:2])
    assert queue.head()[1:3] == (4, 0.0)


def test_a_request_above_the_limit_is_taken_alone():
    queue = make_queue(10)
    large, small = make_request(5), make_request(1)
    push(queue, large)
    push(queue, small)
    assert take(queue, 2) == [large]


def test_requests_of_different_shapes_never_share_a_batch():
    queue = make_queue(10)
    wide, tall, wide_again = make_request(key=((4,),)), make_request(key=((5,),)), make_request(key=((4,),))
    for request in (wide, tall, wide_again):
        push(queue, request)
    assert [take(queue, 8), take(queue, 8)] == [[wide, wide_again], [tall]]
    assert queue.head() is None


def test_the_lane_of_the_most_urgent_request_comes_first():
    queue = make_queue(10)
    relaxed, urgent = make_request(key=((4,),)), make_request(key=((5,),), deadline=1.0)
    push(queue, relaxed)
    push(queue, urgent)
    assert take(queue, 8) == [urgent]


def test_a_full_queue_refuses_and_says_its_limit():
    queue = make_queue(2)
    push(queue, make_request())
    push(queue, make_request())
    with pytest.raises(QueueFull, match="2 requests wait"):
        push(queue, make_request())
    assert len(queue) == 2


def test_a_cancelled_request_makes_room_and_is_never_taken():
    queue = make_queue(2)
    gone, kept = make_request(rows=3), make_request(rows=2)
    push(queue, gone)
    push(queue, kept)
    cancel(queue, gone)
    assert queue.head()[1:3] == (2, 0.0)
    push(queue, make_request())
    assert gone not in drain(queue, 8)


def test_the_oldest_arrival_is_that_of_what_still_waits():
    queue = make_queue(10)
    oldest, middle, urgent = (make_request(arrived=time, priority=2) for time in (1.0, 2.0, 3.0))
    urgent.priority = 1
    for request in (oldest, middle, urgent):
        push(queue, request)
    assert queue.head()[1:3] == (3, 1.0)
    cancel(queue, oldest)
    assert queue.head()[1:3] == (2, 2.0)


def test_expired_gives_only_what_waits_and_is_due():
    queue = make_queue(10)
    due, later, running = make_request(deadline=1.0), make_request(deadline=3.0), make_request(deadline=0.5)
    push(queue, running)
    assert take(queue, 1) == [running]
    push(queue, due)
    push(queue, later)
    assert queue.next_expiry() == pytest.approx(1.0, abs=2e-3)
    assert queue.expired(2.0) == [due]
    assert len(queue) == 1


def requests_in_memory():
    gc.collect()
    return sum(isinstance(thing, InferRequest) for thing in gc.get_objects())


def test_lanes_are_listed_by_urgency_and_lose_nobody():
    queue = make_queue(10)
    gone, late, soon = (make_request(key=((width,),), deadline=time) for width, time in ((1, 1.0), (1, 9.0), (2, 5.0)))
    for request in (gone, late, soon):
        push(queue, request)
    cancel(queue, gone)
    assert queue.lanes() == [(((2,),), 1, 0.0, 5.0), (((1,),), 1, 0.0, 9.0)]
    assert take(queue, 8, ((1,),)) == [late]
    assert take(queue, 8) == [soon]


def test_taken_requests_do_not_pile_up_behind_one_that_waits():
    queue = make_queue(10)
    waiting = make_request(priority=2)
    push(queue, waiting)
    before = requests_in_memory()
    for _ in range(2000):
        push(queue, make_request(priority=1))
        assert len(take(queue, 1)) == 1
    assert requests_in_memory() - before < 300


def test_cancelled_requests_do_not_pile_up_behind_a_busy_instance():
    queue = make_queue(10)
    before = requests_in_memory()
    for _ in range(5000):
        request = make_request(deadline=100.0)
        push(queue, request)
        cancel(queue, request)
        queue.next_expiry()
    assert requests_in_memory() - before < 300


operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("push"),
            st.integers(1, 4),
            st.integers(1, 3),
            st.sampled_from([1.0, 2.0, math.inf]),
            st.integers(0, 2),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("take"), st.integers(1, 8)),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(operations)
def test_behaves_like_a_sorted_list(steps):
    """No request is lost, none comes twice, none is split; order, rows and batch-mates are those of a plain model."""
    queue = make_queue(1000)
    waiting = []  # in order of arrival
    for step in steps:
        if step[0] == "push":
            request = make_request(step[1], priority=step[2], deadline=step[3], key=((step[4],),))
            push(queue, request)
            waiting.append(request)
        elif step[0] == "cancel" and waiting:
            cancel(queue, waiting.pop(step[1] % len(waiting)))
        elif step[0] == "take":
            expected = model_take(waiting, step[1])
            assert take(queue, step[1]) == expected
            waiting = [request for request in waiting if request not in expected]
        assert len(queue) == len(waiting)
        head = queue.head()
        if waiting:
            lane = lane_of_head(waiting)
            assert head == (lane[0].batch_key, sum(request.rows for request in lane), 0.0, lane[0].deadline)
            assert queue.rows == sum(request.rows for request in waiting)
        else:
            assert head is None


def lane_of_head(waiting):
    ordered = sorted(waiting, key=lambda request: (request.priority, request.deadline))  # stable: arrival last
    return [request for request in ordered if request.batch_key == ordered[0].batch_key]


def model_take(waiting, max_rows):
    taken, rows = [], 0
    for request in lane_of_head(waiting) if waiting else []:
        if taken and rows + request.rows > max_rows:
            break
        taken.append(request)
        rows += request.rows
    return taken
