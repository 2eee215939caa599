"""Keeps a place in the code that clients can bring to speak at every request from filling the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass

MOST = 20
"""Records of one place in a period."""

PERIOD_S = 10.0


@dataclass
class _Place:
    since: float
    written: int = 0
    left_out: int = 0


class FloodGuard(logging.Filter):
    """For a logger: leaves out what one of its places says too often; its next record says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[str, int], _Place] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written. Records of one place come from one thread."""
        key = record.pathname, record.lineno
        place = self._places.setdefault(key, _Place(record.created))
        if not 0 <= record.created - place.since < PERIOD_S:  # over, or the clock was set back
            if place.left_out:
                record.msg = f"{record.msg} (and {place.left_out} more like it before)"
            place = self._places[key] = _Place(record.created)
        if place.written < MOST:
            place.written += 1
            return True
        place.left_out += 1
        return False
