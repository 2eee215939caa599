"""Whether a request can still be answered in time: a pure function of what is known when it arrives."""

from __future__ import annotations

MARGIN = 1.2
"""What an estimated wait is multiplied with: a request that is taken should be answered in time, not nearly so."""


def too_late(now: float, deadline: float, expires: float, wait_s: float, run_s: float) -> str:
    """Why a request cannot be answered in time, "" where it can.

    The answer is due at `deadline`, the run has to start by `expires`; the wait for its turn is about `wait_s`, its
    run takes `run_s`. All in seconds of one clock.
    """
    if deadline <= now:
        return "the deadline had passed before the request was queued"
    if expires <= now:
        return "the request's timeout had passed before the request was queued"
    wait_s *= MARGIN
    if now + wait_s > expires:
        return (
            f"{_ms(min(expires, deadline) - now)} are left, and the wait in the queue would take about {_ms(wait_s)};"
            " allow more time or send less at once"
        )
    if now + wait_s + run_s > deadline:
        phase = "the run of the model" if run_s > wait_s else "the wait in the queue"
        return (
            f"{_ms(deadline - now)} are left, but the wait in the queue takes about {_ms(wait_s)} and the run of the"
            f" model {_ms(run_s)}: {phase} would eat the time; allow more"
        )
    return ""


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
