"""Shows how far a build is: a line that changes on a terminal, else a line of text at each milestone."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TextIO

from trtserve_engines.step import Milestones, Step

_WIDTH = 30
_ERASE = "\r\033[K"


class ProgressLine:
    """Writes to `stream` while its block runs. What `logger` writes there meanwhile stands above the line."""

    def __init__(self, stream: TextIO, logger: logging.Logger | None = None) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._milestones = Milestones()
        self._line = ""
        handlers = logger.handlers if logger is not None and self._is_live else ()
        self._handlers = [
            handler for handler in handlers if isinstance(handler, logging.StreamHandler) and handler.stream is stream
        ]

    def __enter__(self) -> ProgressLine:
        for handler in self._handlers:
            handler.setStream(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the line away."""
        for handler in self._handlers:
            handler.setStream(self._stream)
        if self._is_live:
            self._put(_ERASE)

    def show(self, step: Step) -> None:
        """Takes a step."""
        if self._is_live:
            self._line = bar(step)
            self._put(f"{_ERASE}{self._line}")
        elif self._milestones.is_new(step):
            self._put(f"{step}\n")

    def write(self, text: str) -> None:
        """Takes whole lines of the log."""
        self._put(f"{_ERASE}{text}{self._line}")

    def flush(self) -> None:
        """Nothing is held back."""

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def bar(step: Step) -> str:
    """The step as a bar with its words; an empty bar where no percentage is known."""
    full = round(_WIDTH * (step.percent or 0.0) / 100)
    return f"[{'#' * full}{'.' * (_WIDTH - full)}] {step}"
