"""When an open loop sends: offsets in seconds from its start. Pure; the same seed gives the same times."""

from __future__ import annotations

import numpy as np

Offsets = np.ndarray
"""Float64 seconds from the start, in ascending order."""


def constant(rate: float, seconds: float) -> Offsets:
    """Evenly spaced, `rate` a second, the first at once."""
    return np.arange(int(np.ceil(rate * seconds - 1e-9))) / rate


def poisson(rate: float, seconds: float, seed: int) -> Offsets:
    """A Poisson process: gaps are exponential, so that requests come in the clusters that independent users make."""
    random = np.random.default_rng(seed)
    expected = rate * seconds
    gaps = random.exponential(1 / rate, int(expected + 10 * np.sqrt(expected) + 20))
    times = np.cumsum(gaps)
    return times[times < seconds]


def offsets_of(arrivals: str, rate: float, seconds: float, seed: int) -> Offsets:
    """The offsets by the name of the process, "poisson" or "constant"."""
    return constant(rate, seconds) if arrivals == "constant" else poisson(rate, seconds, seed)


def share(offsets: Offsets, worker: int, workers: int) -> Offsets:
    """The part of one worker: every n-th, so that all of them together send the whole sequence."""
    return offsets[worker::workers]
