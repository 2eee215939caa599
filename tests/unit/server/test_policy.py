"""The batching policy as a table of decisions."""

import pytest

from trtserve_server.scheduling.policy import BatchPolicy, Dispatch, WaitForWork, WaitUntil, decide

AT_ONCE = BatchPolicy(8)
DELAYED = BatchPolicy(8, max_delay_s=1.0)
PREFERRED = BatchPolicy(8, max_delay_s=1.0, preferred_rows=(2, 4))


@pytest.mark.parametrize(
    ("rows", "oldest", "idle", "now", "policy", "decision"),
    [
        (0, 0.0, 1, 5.0, AT_ONCE, WaitForWork()),
        (3, 0.0, 0, 5.0, AT_ONCE, WaitForWork()),
        (3, 5.0, 1, 5.0, AT_ONCE, Dispatch(3, "instance idle")),
        (9, 5.0, 1, 5.0, AT_ONCE, Dispatch(8, "full")),
        (8, 5.0, 1, 5.0, DELAYED, Dispatch(8, "full")),
        (3, 5.0, 1, 5.5, DELAYED, WaitUntil(6.0)),
        (3, 5.0, 1, 6.0, DELAYED, Dispatch(3, "delay over")),
        (3, 5.0, 0, 9.0, DELAYED, WaitForWork()),
        (1, 5.0, 1, 5.0, PREFERRED, WaitUntil(6.0)),
        (2, 5.0, 1, 5.0, PREFERRED, Dispatch(2, "preferred size")),
        (3, 5.0, 1, 5.0, PREFERRED, Dispatch(2, "preferred size")),
        (7, 5.0, 1, 5.0, PREFERRED, Dispatch(4, "preferred size")),
        (8, 5.0, 1, 5.0, PREFERRED, Dispatch(8, "full")),
        (1, 5.0, 1, 6.0, PREFERRED, Dispatch(1, "delay over")),
    ],
)
def test_decision(rows, oldest, idle, now, policy, decision):
    assert decide(rows, oldest, idle, now, policy) == decision
