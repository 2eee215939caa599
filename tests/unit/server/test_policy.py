"""The batching policy as a table of decisions."""

import math

import pytest

from trtserve_server.scheduling.policy import BatchPolicy, Dispatch, WaitForWork, WaitUntil, decide

NEVER = math.inf
AT_ONCE = BatchPolicy(8)
DELAYED = BatchPolicy(8, max_delay_s=1.0)
PREFERRED = BatchPolicy(8, max_delay_s=1.0, preferred_rows=(2, 4))


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
