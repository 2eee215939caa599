"""When to cut a batch: a pure function of what waits, who is idle and the time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

_LOSS = 0.01
"""The part of a batch's time that may go on what does not grow with its rows: then larger ones gain nothing."""


@dataclass(frozen=True)
class BatchPolicy:
    """`max_rows` in a batch, how long an idle instance waits for more, and sizes worth cutting at once.

    `fixed_rows` is what a batch costs beside its rows, counted in rows: the less, the less they gain from one another.
    Infinity where that is not known.
    """

    max_rows: int
    max_delay_s: float = 0.0
    preferred_rows: tuple[int, ...] = ()
    fixed_rows: float = math.inf

    @property
    def most_rows(self) -> int:
        """The most that a batch is given: as many as it may have, or as gain anything."""
        return math.ceil(min(self.max_rows, self.fixed_rows / _LOSS))


class Dispatch(NamedTuple):
    """Cut a batch of at most `rows` rows now."""

    rows: int
    reason: str


class WaitUntil(NamedTuple):
    """More rows may come; decide again at `time` at the latest."""

    time: float


class WaitForWork(NamedTuple):
    """Nothing can be done until a request arrives or an instance is idle."""


Decision = Dispatch | WaitUntil | WaitForWork


def decide(
    rows: int, oldest: float, latest_start: float, idle: int, now: float, policy: BatchPolicy, *, spare: bool = False
) -> Decision:
    """What to do with `rows` rows that may share a batch, the oldest of which arrived at time `oldest`.

    Work-conserving: while no instance is idle the pending batch grows; the delay holds only while one is, and not
    beyond `latest_start`, when a run has to start for the most urgent deadline. `spare` says that a busy instance can
    take another batch behind its own; it gets full ones, which have nothing to gain by waiting.
    """
    part = _part(rows, idle, policy)
    if rows and (idle or spare) and rows >= policy.most_rows:
        return Dispatch(part, _why_full(part, policy) if idle else "full, behind another")
    if rows == 0 or idle == 0:
        return WaitForWork()
    preferred = max((size for size in policy.preferred_rows if size <= rows), default=0)
    if preferred:
        return Dispatch(preferred, "preferred size")
    due = oldest + policy.max_delay_s
    if now >= due:
        return Dispatch(part, "delay over" if policy.max_delay_s else "instance idle")
    if now >= latest_start:
        return Dispatch(part, "a deadline is near")
    return WaitUntil(min(due, latest_start))


def _part(rows: int, idle: int, policy: BatchPolicy) -> int:
    """How many of the rows a batch gets: all that it may, or an equal part for each idle instance.

    Parts are worth it where at least half of their time is that of their rows; else an instance had better stay idle.
    """
    if idle > 1:
        rows = math.ceil(min(rows, max(rows / idle, policy.fixed_rows)))
    return min(rows, policy.most_rows)


def _why_full(part: int, policy: BatchPolicy) -> str:
    return "full" if part == policy.max_rows else "more rows would gain nothing"
