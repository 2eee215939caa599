"""Ratios of targets that were measured in turn: the median over the rounds, and a confidence interval. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trtserve_client.load.results import Level, Ratio

COMPARED = ("throughput", "p50", "p99")
_RESAMPLES = 4000
_CONFIDENCE = 95


def ratios_of(levels: Sequence[Level], first: str) -> list[Ratio]:
    """Each target's figures by those of the target called `first`, round by round: what disturbs one disturbs both."""
    by_target = {level.target: level for level in levels}
    base = by_target[first]
    found = []
    for level in levels:
        for metric in COMPARED:
            pairs = [
                (getattr(run, metric), getattr(other, metric))
                for run, other in zip(level.runs, base.runs, strict=False)
            ]
            values = [one / other for one, other in pairs if other]
            if values:
                found.append(Ratio(level.target, metric, *interval(values)))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the ends of its 95 % confidence interval by bootstrap; the same values give the same interval."""
    array = np.array(values)
    drawn = np.random.default_rng(0).choice(array, (_RESAMPLES, len(array)))
    edge = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(np.median(drawn, axis=1), [edge, 100 - edge])
    return float(np.median(array)), float(low), float(high)
