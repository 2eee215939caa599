"""How far a build has come: TensorRT's nested phases as one fraction that never goes back. Knows no TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Progress(NamedTuple):
    """`fraction` from 0 to 1, what is being done, and seconds so far and, where they can be told, to go."""

    fraction: float
    phase: str
    elapsed_s: float
    remaining_s: float | None

    def __str__(self) -> str:
        left = "" if self.remaining_s is None else f", about {self.remaining_s:.0f} s left"
        return f"{self.fraction:.0%} {self.phase}{left}"


@dataclass
class _Phase:
    name: str
    parent: _Phase | None
    steps: int
    done: int = 0
    inner: float = 0.0  # what the phases inside the current step have come to

    def fraction(self) -> float:
        return min(1.0, (self.done + self.inner) / self.steps) if self.steps else self.inner


class ProgressTree:
    """Hears of phases as TensorRT tells them: a phase lies within one step of its parent. Time is an argument."""

    def __init__(self, now: float) -> None:
        self._start = now
        self._phases: dict[str, _Phase] = {}
        self._fraction = 0.0
        self._phase = ""

    def phase_start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins inside the phase `parent`."""
        self._phases[name] = _Phase(name, self._phases.get(parent or ""), steps)
        self._phase = name

    def step_complete(self, name: str, step: int) -> None:
        """Step `step`, counted from 0, is done."""
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = max(phase.done, step + 1)
            phase.inner = 0.0
            self._phase = name
            self._spread(phase)

    def phase_finish(self, name: str) -> None:
        """The phase is over, whether or not all of its steps were told."""
        phase = self._phases.pop(name, None)
        if phase is not None:
            phase.done, phase.inner = phase.steps, 1.0
            self._spread(phase)
            self._phase = phase.parent.name if phase.parent else self._phase

    def at(self, now: float) -> Progress:
        """How far it is. What remains is estimated from the pace so far, once there is one."""
        elapsed = now - self._start
        remaining = elapsed * (1 / self._fraction - 1) if self._fraction >= 0.02 else None
        return Progress(self._fraction, self._phase, elapsed, remaining)

    def _spread(self, phase: _Phase) -> None:
        while phase.parent is not None:
            phase.parent.inner = phase.fraction()
            phase = phase.parent
        self._fraction = max(self._fraction, min(1.0, phase.fraction()))
