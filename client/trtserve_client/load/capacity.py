"""The search for the highest rate that holds an objective: which rate to try next, as a pure function of the trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from trtserve_client.load.results import Run

PRECISION = 1.05
"""The search ends where the lowest rate that failed is this close to the highest that held."""
_LEAST_RATE = 0.1
_MOST_ERRORS = 0.001


class Trial(NamedTuple):
    """A rate, and whether it held the objective."""

    rate: float
    holds: bool


def next_rate(trials: Sequence[Trial], start: float) -> float:
    """The rate to try next; 0 where the search is over. Doubles or halves until it has both sides, then bisects."""
    if not trials:
        return rounded(start)
    best, failed = best_rate(trials), min((trial.rate for trial in trials if not trial.holds), default=math.inf)
    if failed == math.inf:
        return rounded(best * 2)
    if not best:
        return rounded(failed / 2) if failed > 2 * _LEAST_RATE else 0.0
    if failed / best <= PRECISION:
        return 0.0
    middle = rounded(math.sqrt(best * failed))
    return middle if best < middle < failed else 0.0


def best_rate(trials: Sequence[Trial]) -> float:
    """The highest rate that held, below every rate that failed; 0 where none did."""
    failed = min((trial.rate for trial in trials if not trial.holds), default=math.inf)
    return max((trial.rate for trial in trials if trial.holds and trial.rate < failed), default=0.0)


def holds(run: Run, p99_ms: float) -> bool:
    """Whether a measurement meets the objective: the rate reached, its p99 within, at most 0.1 % of errors."""
    requests = run.answered + run.error_count
    return bool(run.answered) and run.reached and run.p99 <= p99_ms and run.error_count <= _MOST_ERRORS * requests


def rounded(rate: float) -> float:
    """Three significant digits, which is more than a measurement can tell."""
    return float(f"{rate:.3g}")
