"""Shows how far a build is: a line that changes on a terminal, else a line of text at each milestone."""

from __future__ import annotations

from typing import TextIO

from trtserve_engines.step import Milestones, Step

_WIDTH = 30
_ERASE = "\r\033[K"


class ProgressLine:
    """Writes to `stream`. To be ended by `close` before anything else is written there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._milestones = Milestones()

    def show(self, step: Step) -> None:
        """Takes a step."""
        if self._is_live:
            self._write(f"{_ERASE}{bar(step)}")
        elif self._milestones.is_new(step):
            self._write(f"{step}\n")

    def close(self) -> None:
        """Takes the line away."""
        if self._is_live:
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def bar(step: Step) -> str:
    """The step as a bar with its words; an empty bar where no percentage is known."""
    full = round(_WIDTH * (step.percent or 0.0) / 100)
    return f"[{'#' * full}{'.' * (_WIDTH - full)}] {step}"
