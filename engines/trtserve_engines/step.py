"""One step on the way to an engine, as it is told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock

_TENTH = 10


@dataclass(frozen=True)
class Step:
    """What is being done. `percent` and `remaining_s` are None where they cannot be known."""

    name: str
    percent: float | None = None
    remaining_s: float | None = None

    def __str__(self) -> str:
        text = self.name
        if self.percent is not None:
            text += f" {self.percent:.0f} %"
        if self.remaining_s is not None and self.remaining_s >= 1:
            text += f", about {self.remaining_s:.0f} s left"
        return text


class Cancel(Event):
    """A wish to end what is under way. It also calls who cannot wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._actions: list[Callable[[], None]] = []
        self._lock = Lock()

    def set(self) -> None:
        """Wishes it, and calls those who are to be called, on this thread."""
        with self._lock:
            super().set()
            actions = list(self._actions)
        for action in actions:
            action()

    @contextmanager
    def calling(self, action: Callable[[], None]) -> Iterator[None]:
        """Calls `action` if the wish comes while the block runs, or has come before."""
        with self._lock:
            self._actions.append(action)
            is_set = self.is_set()
        if is_set:
            action()
        try:
            yield
        finally:
            with self._lock:
                self._actions.remove(action)


@dataclass(frozen=True)
class Watch:
    """Who waits for an engine: hears of each step, may end it by `cancel`, and may not want to wait for a build."""

    on_step: Callable[[Step], None] = lambda step: None
    cancel: Cancel = field(default_factory=Cancel)
    may_build: bool = True


class Milestones:
    """Picks the steps that are worth a line of a log: a new one, and each tenth of one."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def is_new(self, step: Step) -> bool:
        """Whether the step is the first of its kind, or of its tenth."""
        reached = step.name, int((step.percent or 0) // _TENTH)
        is_new, self._last = reached != self._last, reached
        return is_new
