"""The batching policy as a table of decisions."""

import math

import pytest
from hypothesis import given, strategies as st

from trtserve_server.scheduling.policy import BatchPolicy, Dispatch, WaitForWork, WaitUntil, decide

NEVER = math.inf
AT_ONCE = BatchPolicy(8)
DELAYED = BatchPolicy(8, max_delay_s=1.0)
PREFERRED = BatchPolicy(8, max_delay_s=1.0, preferred_rows=(2, 4))
ROW_BY_ROW = BatchPolicy(8, fixed_rows=0.02)
GAINING = BatchPolicy(64, fixed_rows=2.5)


@pytest.mark.parametrize(
    ("rows", "oldest", "latest", "idle", "now", "policy", "decision"),
    [
        (0, 0.0, NEVER, 1, 5.0, AT_ONCE, WaitForWork()),
        (3, 0.0, NEVER, 0, 5.0, AT_ONCE, WaitForWork()),
        (3, 5.0, NEVER, 1, 5.0, AT_ONCE, Dispatch(3, "instance idle")),
        (9, 5.0, NEVER, 1, 5.0, AT_ONCE, Dispatch(8, "full")),
        (8, 5.0, NEVER, 1, 5.0, DELAYED, Dispatch(8, "full")),
        (3, 5.0, NEVER, 1, 5.5, DELAYED, WaitUntil(6.0)),
        (3, 5.0, NEVER, 1, 6.0, DELAYED, Dispatch(3, "delay over")),
        (3, 5.0, NEVER, 0, 9.0, DELAYED, WaitForWork()),
        (1, 5.0, NEVER, 1, 5.0, PREFERRED, WaitUntil(6.0)),
        (2, 5.0, NEVER, 1, 5.0, PREFERRED, Dispatch(2, "preferred size")),
        (3, 5.0, NEVER, 1, 5.0, PREFERRED, Dispatch(2, "preferred size")),
        (7, 5.0, NEVER, 1, 5.0, PREFERRED, Dispatch(4, "preferred size")),
        (8, 5.0, NEVER, 1, 5.0, PREFERRED, Dispatch(8, "full")),
        (1, 5.0, NEVER, 1, 6.0, PREFERRED, Dispatch(1, "delay over")),
        (1, 5.0, 5.4, 1, 5.2, DELAYED, WaitUntil(5.4)),
        (1, 5.0, 5.4, 1, 5.4, DELAYED, Dispatch(1, "a deadline is near")),
        (1, 5.0, 9.0, 1, 5.2, DELAYED, WaitUntil(6.0)),
        (1, 5.0, 5.4, 0, 5.4, DELAYED, WaitForWork()),
    ],
)
def test_decision(rows, oldest, latest, idle, now, policy, decision):
    assert decide(rows, oldest, latest, idle, now, policy) == decision


@pytest.mark.parametrize(
    ("rows", "idle", "decision"),
    [
        (8, 0, Dispatch(8, "full, behind another")),
        (9, 0, Dispatch(8, "full, behind another")),
        (7, 0, WaitForWork()),
        (0, 0, WaitForWork()),
        (8, 1, Dispatch(8, "full")),
        (3, 1, Dispatch(3, "instance idle")),
    ],
)
def test_a_busy_instance_that_can_take_more_gets_full_batches_only(rows, idle, decision):
    assert decide(rows, 5.0, NEVER, idle, 5.0, AT_ONCE, spare=True) == decision


@pytest.mark.parametrize(
    ("rows", "idle", "policy", "decision"),
    [
        (7, 1, ROW_BY_ROW, Dispatch(2, "more rows would gain nothing")),
        (2, 1, ROW_BY_ROW, Dispatch(2, "more rows would gain nothing")),
        (1, 1, ROW_BY_ROW, Dispatch(1, "instance idle")),
        (7, 0, ROW_BY_ROW, WaitForWork()),
        (0, 2, ROW_BY_ROW, WaitForWork()),
        # Shared out, where several are idle.
        (2, 2, ROW_BY_ROW, Dispatch(1, "more rows would gain nothing")),
        (3, 2, ROW_BY_ROW, Dispatch(2, "more rows would gain nothing")),
        (3, 2, BatchPolicy(8, fixed_rows=0.04), Dispatch(2, "instance idle")),
        (9, 2, BatchPolicy(8, fixed_rows=0.04), Dispatch(4, "more rows would gain nothing")),
        (20, 2, BatchPolicy(8, fixed_rows=0.3), Dispatch(8, "full")),
        # But not into parts that have more cost than rows.
        (8, 2, GAINING, Dispatch(4, "instance idle")),
        (4, 2, GAINING, Dispatch(3, "instance idle")),
        (2, 2, GAINING, Dispatch(2, "instance idle")),
        (99, 1, GAINING, Dispatch(64, "full")),
        # Where rows gain, the first takes what it can.
        (7, 2, AT_ONCE, Dispatch(7, "instance idle")),
    ],
)
def test_no_batch_is_larger_than_gains_anything(rows, idle, policy, decision):
    assert decide(rows, 5.0, NEVER, idle, 5.0, policy) == decision


@given(
    st.integers(1, 100),
    st.integers(1, 8),
    st.integers(1, 64),
    st.one_of(st.floats(0.0001, 100.0), st.just(math.inf)),
    st.integers(0, 3),
)
def test_whoever_is_idle_gets_work_as_long_as_there_is_some(rows, idle, max_rows, fixed_rows, delay_s):
    """Cutting until the policy waits leaves nothing waiting beside an idle instance, whatever the sizes."""
    policy = BatchPolicy(max_rows, float(delay_s), fixed_rows=fixed_rows)
    sizes = []
    left = rows
    while isinstance(decision := decide(left, 0.0, NEVER, idle - len(sizes), 5.0, policy), Dispatch):
        sizes.append(decision.rows)
        left -= decision.rows
    assert left == 0 or len(sizes) == idle
    assert all(1 <= size <= policy.most_rows <= max_rows for size in sizes)
    if fixed_rows <= 1:
        assert len(sizes) == min(rows, idle)
    if fixed_rows == math.inf:
        assert sizes[0] == min(rows, max_rows)
