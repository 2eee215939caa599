"""From figures to places on a drawing: linear, logarithmic, percentile and ordinal scales with ticks to read. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Tick(NamedTuple):
    """A place on an axis, from 0 to 1, and its text."""

    place: float
    text: str


class Scale(Protocol):
    """An axis."""

    @property
    def ticks(self) -> Sequence[Tick]:
        """What is written along the axis."""
        ...

    def place(self, value: float) -> float:
        """Where the value lies, from 0 to 1."""
        ...


class Linear:
    """From 0 to a round figure above `most`."""

    def __init__(self, most: float, count: int = 5) -> None:
        step = _round_up((most if most > 0 else 1.0) / count)
        self._top = step * math.ceil((most if most > 0 else 1.0) / step - 1e-9)
        self.ticks = [
            Tick(number * step / self._top, short(number * step)) for number in range(round(self._top / step) + 1)
        ]

    def place(self, value: float) -> float:
        """See Scale."""
        return min(1.0, max(0.0, value / self._top))


class Logarithmic:
    """From a round figure below `least` to one above `most`; both are more than 0."""

    def __init__(self, least: float, most: float) -> None:
        most = max(most, least * 1.5)
        decades = math.log10(most / least)
        steps = (
            (1, 2, 3, 4, 6, 8) if decades <= 1 else (1, 2, 5) if decades <= 2.5 else (1, 3) if decades <= 4 else (1,)
        )
        first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
        values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        self._low = max(value for value in values if value <= least * (1 + 1e-9))
        self._high = min(value for value in values if value >= most * (1 - 1e-9))
        inside = [value for value in values if self._low <= value <= self._high]
        self.ticks = [Tick(self.place(value), short(value)) for value in inside]

    def place(self, value: float) -> float:
        """See Scale."""
        if value <= self._low:
            return 0.0
        return min(1.0, math.log(value / self._low) / math.log(self._high / self._low))


class Percentiles:
    """Each nine takes as much room as the one before, so that the tail can be seen; 100 % stands at the end."""

    def __init__(self, most: float) -> None:
        self._nines = max(1.0, -math.log10(1 - min(most, 99.9999) / 100)) + 0.5
        shown = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
        self.ticks = [Tick(self.place(value), f"{value:g} %") for value in shown if value <= most]
        self.ticks.append(Tick(1.0, "max"))

    def place(self, value: float) -> float:
        """See Scale."""
        return 1.0 if value >= 100 else min(1.0, -math.log10(1 - value / 100) / self._nines)


class Ordinal:
    """Names side by side; a value is the index of a name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._count = len(names)
        self.ticks = [Tick(self.place(index), name) for index, name in enumerate(names)]

    def place(self, value: float) -> float:
        """See Scale."""
        return (value + 0.5) / self._count


def short(value: float) -> str:
    """A figure in few characters: 1.5k, 20, 0.5, 2M."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{value / (1e3 if suffix == 'k' else factor):.4g}{suffix}"
    return f"{value:.4g}"


def digits(value: float, count: int = 3) -> str:
    """A figure with so many digits, or as a whole number where it has more: never as a power of ten."""
    return f"{value:.{count}g}" if abs(value) < 10**count - 0.5 else f"{value:,.0f}"


def _round_up(value: float) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten that is not below the value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))
