"""Notices batches that run for too long: one timer for all instances of a model."""

from __future__ import annotations

import math
from collections.abc import Callable

from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.instance import Instance
from trtserve_server.scheduling.reactor import Reactor

Overdue = Callable[[Instance, Batch], None]


class Watchdog:
    """Knows what runs since when; calls `on_overdue` for a batch that has run for `limit_s` seconds."""

    def __init__(self, reactor: Reactor, limit_s: float, on_overdue: Overdue) -> None:
        self._reactor = reactor
        self._limit_s = limit_s
        self._on_overdue = on_overdue
        self._running: dict[Instance, tuple[float, Batch]] = {}  # in the order of their starts
        self._armed = False

    def started(self, instance: Instance, batch: Batch, now: float) -> None:
        """Takes note of a batch that an instance was given."""
        self._running[instance] = (now, batch)
        if not self._armed and self._limit_s != math.inf:
            self._arm(now)

    def ended(self, instance: Instance) -> Batch | None:
        """Takes note of the end of an instance's batch; None where it had none or was reported as overdue."""
        return self._running.pop(instance, (0.0, None))[1]

    def oldest(self) -> tuple[float, Batch] | None:
        """The batch that has run longest, and since when."""
        return next(iter(self._running.values()), None)

    def _arm(self, since: float) -> None:
        self._armed = True
        self._reactor.at(since + self._limit_s, self._look)

    def _look(self) -> None:
        self._armed = False
        now = self._reactor.now()
        for instance, (since, batch) in list(self._running.items()):
            if since + self._limit_s > now:
                self._arm(since)
                return
            del self._running[instance]
            self._on_overdue(instance, batch)
