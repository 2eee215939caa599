"""Tells the log and the scheduling thread how far a build is, no more often than somebody could want to know."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trtserve_engines.step import Milestones, Step

log = logging.getLogger(__name__)


class StepReporter:
    """Hears of every step of one build, on any thread. Posts what reads differently, logs each tenth of the way."""

    def __init__(self, name: str, post: Callable[[Step], None]) -> None:
        self._name = name
        self._post = post
        self._posted = ""
        self._milestones = Milestones()

    def report(self, step: Step) -> None:
        """Takes a step."""
        text = str(step)
        if text == self._posted:
            return
        self._posted = text
        self._post(step)
        if self._milestones.is_new(step):
            log.info("%s: %s", self._name, text)
