"""How long the loop's thread looks for gRPC's next event in vain before another thread waits for it: a pure rule.

Looking costs CPU, which the models may want, and not looking costs a hand-over between threads, about 50 us of CPU and
of latency. So it looks for long only where that has been worth it every time of late: for a caller that sends its next
request as soon as it has its answer.
"""

from __future__ import annotations

HASTY_S, PATIENT_S = 20e-6, 200e-6

SURE = 8
"""Events in a row that came late, but in time to be found by looking for long, from which on it does."""


class Patience:
    """`seconds` is how long to look now."""

    __slots__ = ("_found", "seconds")

    def __init__(self) -> None:
        self.seconds = HASTY_S
        self._found = 0

    def came(self, after_s: float) -> None:
        """Takes how long after the last event was handled the next one came."""
        if after_s > HASTY_S:  # sooner ones are found in any case
            self._found = self._found + 1 if after_s < PATIENT_S else 0
            self.seconds = PATIENT_S if self._found >= SURE else HASTY_S
