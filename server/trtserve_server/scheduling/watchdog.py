"""Notices batches that run for too long: one timer for all instances of a model."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.instance import Instance
from trtserve_server.scheduling.reactor import Reactor

Overdue = Callable[[Instance, Sequence[Batch]], None]


class _Held:
    """The batches of one instance in the order of their runs, and since when the first of them runs."""

    __slots__ = ("batches", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.batches: deque[Batch] = deque()


class Watchdog:
    """Knows what runs since when; calls `on_overdue` where a batch has run for `limit_s` seconds.

    A batch behind another of its instance counts as running from the other's end.
    """

    def __init__(self, reactor: Reactor, limit_s: float, on_overdue: Overdue) -> None:
        self._reactor = reactor
        self._limit_s = limit_s
        self._on_overdue = on_overdue
        self._held: dict[Instance, _Held] = {}  # the one that has run longest first
        self._armed = False

    def started(self, instance: Instance, batch: Batch, now: float) -> None:
        """Takes note of a batch that an instance was given."""
        held = self._held.get(instance)
        if held is None:
            held = self._held[instance] = _Held(now)
        held.batches.append(batch)
        if not self._armed and self._limit_s != math.inf:
            self._arm(now)

    def ended(self, instance: Instance, batch: Batch, now: float) -> bool:
        """Takes note of the end of a batch; False where its instance has been given up meanwhile."""
        held = self._held.get(instance)
        if held is None:
            return False
        first = held.batches[0] is batch
        held.batches.remove(batch)
        if first:  # the next one's time begins
            del self._held[instance]
            if held.batches:
                held.since = now
                self._held[instance] = held
        return True

    def drop(self, instance: Instance) -> Sequence[Batch]:
        """Gives an instance up: what it held."""
        held = self._held.pop(instance, None)
        return tuple(held.batches) if held else ()

    def oldest(self) -> tuple[float, Batch] | None:
        """The batch that has run longest, and since when."""
        held = next(iter(self._held.values()), None)
        return (held.since, held.batches[0]) if held else None

    def _arm(self, since: float) -> None:
        self._armed = True
        self._reactor.at(since + self._limit_s, self._look)

    def _look(self) -> None:
        self._armed = False
        now = self._reactor.now()
        for instance, held in list(self._held.items()):
            if held.since + self._limit_s > now:
                self._arm(held.since)
                return
            self._on_overdue(instance, self.drop(instance))
