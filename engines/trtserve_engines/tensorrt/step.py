"""One step on the way to an engine, as it is told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event


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
        if self.remaining_s is not None:
            text += f", about {self.remaining_s:.0f} s left"
        return text


@dataclass(frozen=True)
class Watch:
    """Who waits for an engine: hears of each step, may end it by `cancel`, and may not want to wait for a build."""

    on_step: Callable[[Step], None] = lambda step: None
    cancel: Event = field(default_factory=Event)
    may_build: bool = True
