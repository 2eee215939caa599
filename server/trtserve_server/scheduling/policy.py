"""When to cut a batch: a pure function of what waits, who is idle and the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class BatchPolicy:
    """`max_rows` in a batch, how long an idle instance waits for more, and sizes worth cutting at once."""

    max_rows: int
    max_delay_s: float = 0.0
    preferred_rows: tuple[int, ...] = ()


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
    if rows and (idle or spare) and rows >= policy.max_rows:
        return Dispatch(policy.max_rows, "full" if idle else "full, behind another")
    if rows == 0 or idle == 0:
        return WaitForWork()
    preferred = max((size for size in policy.preferred_rows if size <= rows), default=0)
    if preferred:
        return Dispatch(preferred, "preferred size")
    due = oldest + policy.max_delay_s
    if now >= due:
        return Dispatch(rows, "delay over" if policy.max_delay_s else "instance idle")
    if now >= latest_start:
        return Dispatch(rows, "a deadline is near")
    return WaitUntil(min(due, latest_start))
