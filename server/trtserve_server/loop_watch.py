"""Watches the event loop: how late it is, and where it is stuck while something blocks it.

The loop beats; a beat that comes late tells by how much. A thread looks at the beats and says where the loop is when
one does not come.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from time import monotonic

from trtserve_server.statistics import LoopStatistics

log = logging.getLogger(__name__)

PERIOD_S = 0.1


class LoopWatch:
    """Made on the loop that it watches; a beat that is late by `limit_s` or more is a stall, which is logged."""

    def __init__(self, statistics: LoopStatistics, limit_s: float) -> None:
        self._statistics = statistics
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._ended = threading.Event()
        self._due = monotonic() + PERIOD_S
        self._timer = self._loop.call_later(PERIOD_S, self._beat)
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch."""
        self._timer.cancel()
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        now = monotonic()
        late_s = max(0.0, now - self._due)
        self._statistics.lag_s.observe(late_s)
        if late_s >= self._limit_s:
            self._statistics.stalls += 1
            log.warning("the event loop was blocked for %.3g s; nothing was taken or answered", late_s)
        self._due = now + PERIOD_S
        self._timer = self._loop.call_later(PERIOD_S, self._beat)

    def _watch(self) -> None:
        told = 0.0
        while not self._ended.wait(PERIOD_S):
            due = self._due
            late_s = monotonic() - due
            if late_s >= self._limit_s and due != told:
                told = due
                log.warning("the event loop is blocked since %.3g s, at:\n%s", late_s, self._where())

    def _where(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame)).rstrip() if frame else "an unknown place"
