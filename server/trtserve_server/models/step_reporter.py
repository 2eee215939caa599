"""Tells the log and the scheduling thread how far a build is, no more often than somebody could want to know."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trtserve_engines.tensorrt.step import Step

log = logging.getLogger(__name__)

_LOGGED_PERCENT = 10


class StepReporter:
    """Hears of every step of one build, on any thread. Posts what reads differently, logs each tenth of the way."""

    def __init__(self, name: str, post: Callable[[Step], None]) -> None:
        self._name = name
        self._post = post
        self._posted = ""
        self._logged: tuple[str, int] | None = None

    def report(self, step: Step) -> None:
        """Takes a step."""
        text = str(step)
        if text == self._posted:
            return
        self._posted = text
        self._post(step)
        tenth = step.name, int((step.percent or 0) // _LOGGED_PERCENT)
        if tenth != self._logged:
            self._logged = tenth
            log.info("%s: %s", self._name, text)
