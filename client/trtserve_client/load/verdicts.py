"""What the figures of a measurement allow to be said: stable or not, rate reached or not, who was the limit. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trtserve_client.load.scales import digits

BUSY = 0.9
"""Share of a CPU from which on a worker is taken to be the limit: a Python process runs on one at a time."""
_FULL = 0.97
_LAG_SHARE = 0.1
_LEAST_LAG_MS = 1.0
_REACHED = 0.97


def instability(rates: Sequence[float], p50s: Sequence[float], tolerance_percent: float) -> str:
    """Why the parts of a measurement differ too much to be one result; "" where they do not."""
    for name, values, unit in (("rate", rates, "/s"), ("p50", p50s, " ms")):
        least, most = min(values, default=0.0), max(values, default=0.0)
        middle = sorted(values)[len(values) // 2] if values else 0.0
        if middle and (most - least) > 2 * middle * tolerance_percent / 100:
            return f"{name} ran from {digits(least, 4)}{unit} to {digits(most, 4)}{unit} within the measurement"
        if not middle and most:
            return f"{name} was 0 for most of the measurement"
    return ""


def rate_reached(due: int, ended: int, unsent: int) -> bool:
    """Whether as many requests ended in the window as were due in it; a closed loop has none due and keeps up.

    Those under way at the edges of the window vary by about the square root of the count.
    """
    return not unsent and ended >= _REACHED * due - 2 * math.sqrt(due)


def client_limit(
    *, cpu_share: float, lag_p99_ms: float, p50_ms: float, machine_cpu: float, server_is_here: bool
) -> str:
    """Why the client may have been the limit, and what to do; "" where it was not."""
    if lag_p99_ms > max(_LEAST_LAG_MS, _LAG_SHARE * p50_ms):
        return f"1 % of the requests were sent {digits(lag_p99_ms)} ms late or more, use more --workers or a lower rate"
    if cpu_share >= BUSY:
        return f"a worker used {100 * cpu_share:.0f} % of a CPU, use more --workers"
    if machine_cpu < _FULL:
        return ""
    full = f"all CPUs of this machine were busy for {100 * machine_cpu:.0f} % of the time"
    if server_is_here:
        return f"{full} and the server shares them with the load, so its own limit may be higher"
    return f"{full}, send from a larger one"
