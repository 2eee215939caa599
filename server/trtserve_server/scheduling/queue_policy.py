"""How many requests of a model may wait, for how long, and on which level: Triton's queue policy as a pure object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LevelPolicy:
    """What holds for the requests of one priority level.

    `max_requests` may wait (0: as many as in the whole queue), each for at most `timeout_s`. One that has waited
    longer is refused, or with `delay` stands behind its level. With `allow_override` a request may shorten its
    timeout.
    """

    max_requests: int = 0
    timeout_s: float = math.inf
    delay: bool = False
    allow_override: bool = True

    def wait_limit_s(self, asked_s: float) -> float:
        """How long a request may wait that asks for at most `asked_s`."""
        return min(asked_s, self.timeout_s) if self.allow_override else self.timeout_s


@dataclass(frozen=True)
class QueuePolicy:
    """Bounds of a whole queue and the policies of its levels.

    `levels` is the number of priorities, 1 the most urgent; with 0 every priority is a level of its own. A request
    without a priority, or with one beyond `levels`, is put on `default_level`.
    """

    max_requests: int
    max_bytes: int
    levels: int = 0
    default_level: int = 1
    default: LevelPolicy = LevelPolicy()
    by_level: Mapping[int, LevelPolicy] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether no level has bounds or timeouts of its own."""
        return not self.by_level and self.default == LevelPolicy()

    def level_of(self, priority: int) -> int:
        """The level of a request with this priority."""
        if self.levels and priority > self.levels:
            return self.default_level
        return priority or self.default_level

    def of_level(self, level: int) -> LevelPolicy:
        """The policy of a level."""
        return self.by_level.get(level, self.default)
