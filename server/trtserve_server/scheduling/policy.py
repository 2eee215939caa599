"""When to cut a batch: a pure function of what waits, who is idle and the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class BatchPolicy:
    """`max_rows` in a batch, how long an idle instance waits for more, and sizes worth cutting at once.

    With more than `enough_rows` a batch takes so much longer that nothing is gained; 0 where it gains up to `max_rows`.
    """

    max_rows: int
    max_delay_s: float = 0.0
    preferred_rows: tuple[int, ...] = ()
    enough_rows: int = 0

    @property
    def most_rows(self) -> int:
        """The most that a batch is given."""
        return min(self.max_rows, self.enough_rows or self.max_rows)


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
    """How many of the rows a batch gets: all that it may, or an equal part for each idle instance if that is as good.

    It nearly is with half of what is enough: what does not grow with the rows then counts twice.
    """
    if policy.enough_rows and idle > 1:
        rows = min(rows, max(-(-rows // idle), -(-policy.enough_rows // 2)))
    return min(rows, policy.most_rows)


def _why_full(part: int, policy: BatchPolicy) -> str:
    return "full" if part == policy.max_rows else "more rows would gain nothing"
