"""One timer that is set again and again: the time at which a batcher has to look anew, which changes with each look."""

from __future__ import annotations

import math
from collections.abc import Callable

from trtserve_server.scheduling.reactor import Cancel, Reactor


class Alarm:
    """Calls `ring` on the reactor's thread at the time that was set last, once; infinity is never."""

    __slots__ = ("_cancel", "_reactor", "_ring", "_time")

    def __init__(self, reactor: Reactor, ring: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ring = ring
        self._cancel: Cancel | None = None
        self._time = math.inf

    def set(self, time: float) -> None:
        """Sets the time, in place of the one that was set before."""
        if time == self._time:
            return
        if self._cancel is not None:
            self._cancel()
        self._time = time
        self._cancel = None if time == math.inf else self._reactor.at(time, self._rings)

    def _rings(self) -> None:
        self._cancel, self._time = None, math.inf
        self._ring()
