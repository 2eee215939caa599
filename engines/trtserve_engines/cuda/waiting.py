"""Waits for an event, with a limit: the driver's own wait has none, and a GPU that hangs would take the thread along.

So the event is asked again and again, rarely at first: a batch takes about as long as the last one like it did.
"""

from __future__ import annotations

import time

from trtserve_engines.cuda.api import Event
from trtserve_engines.cuda.errors import EventTimeoutError

_SHORTEST_PAUSE_S = 20e-6
_LONGEST_PAUSE_S = 1e-3
_SHARE = 1 / 64


def next_pause_s(waited_s: float, expected_s: float) -> float:
    """How long not to ask. Most of what is expected at once, then short pauses, longer when it takes much longer.

    The pauses add about 1 % to a wait of any length at the cost of some dozens of questions.
    """
    most = expected_s * (1 - 4 * _SHARE) - waited_s
    if most > _SHORTEST_PAUSE_S:
        return most
    return min(max(_SHORTEST_PAUSE_S, max(waited_s, expected_s) * _SHARE), _LONGEST_PAUSE_S)


def wait_for_event(event: Event, *, timeout_s: float, expected_s: float = 0.0) -> None:
    """Returns when the event has happened. Raises EventTimeoutError after `timeout_s`, or CudaError.

    `expected_s` is how long it is likely to take; a wrong guess costs time, nothing else.
    """
    if event.query():
        return
    start = time.monotonic()
    expected_s = min(expected_s, timeout_s)
    waited_s = 0.0
    while True:
        time.sleep(next_pause_s(waited_s, expected_s))
        if event.query():
            return
        waited_s = time.monotonic() - start
        if waited_s > timeout_s:
            raise EventTimeoutError(
                f"the GPU has not finished a batch within {timeout_s:g} s: it hangs, or the limit is too short."
                " Nothing can be done from inside this process; start it again, and look at dmesg for Xid messages"
            )
