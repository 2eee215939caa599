"""How many processor cores this process may use: by its affinity, and by the quota of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA_V2 = Path("/sys/fs/cgroup/cpu.max")
_QUOTA_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_PERIOD_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cores() -> int:
    """At least 1. A quota of two and a half cores counts as 2."""
    return max(1, int(min(len(os.sched_getaffinity(0)), _quota())))


def quota_from_text(text: str) -> float:
    """The cores that "QUOTA PERIOD" allows, both in microseconds; infinity for "max PERIOD" and what cannot be read.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    quota, _, period = text.strip().partition(" ")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return math.inf
    return int(quota) / int(period)


def _quota() -> float:
    try:
        if _QUOTA_V2.exists():
            return quota_from_text(_QUOTA_V2.read_text())
        return quota_from_text(f"{_QUOTA_V1.read_text().strip()} {_PERIOD_V1.read_text()}")
    except OSError:
        return math.inf
