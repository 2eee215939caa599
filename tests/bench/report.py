"""What a benchmark gives: ratios to a baseline that was measured in turn with it, and the target they are held to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """One line of the report. `values` are the ratios of the rounds; `figures` say what was divided by what."""

    name: str
    values: Sequence[float]
    target: float
    at_least: bool
    figures: str

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        """Whether the median meets the target."""
        return self.median >= self.target if self.at_least else self.median <= self.target

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        spread = f"{min(self.values):.2f} to {max(self.values):.2f}"
        verdict = "ok" if self.met else "MISSED"
        target = f"target {sign} {self.target}"
        return f"{self.name:<50} {self.median:5.2f}  ({spread})  {target:<14} {verdict:<6}  {self.figures}"


def in_turn(rounds: int, one: Callable[[], float], other: Callable[[], float]) -> list[tuple[float, float]]:
    """Measures both, one after the other, `rounds` times: what disturbs the machine disturbs both."""
    return [(one(), other()) for _ in range(rounds)]


def medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The median of each side."""
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)
