"""How fast a model answers, as measured: what a run takes, and what a row takes while others wait."""

from __future__ import annotations

from collections import deque

_RUNS = 8
"""Runs that are remembered of each size. Their median counts, so that one slow run does not pass for the pace."""

FRESH_S = 1.0
"""After so long without a run, what a run takes is tried again instead of trusted: a slow time is not for ever."""

_MEMORY_RUNS = 4.0
"""The time per row is taken over about so many runs: instances that start together end together, with gaps between."""

_MEMORY_S = 0.5
"""And over about so long at least: one hold-up among many short runs is not the pace of what waits."""


class Pace:
    """Measurements of one model; times in seconds. What is unknown counts as 0: nothing is refused on a guess."""

    def __init__(self) -> None:
        self._runs: dict[int, deque[float]] = {}
        self._median: dict[int, float] = {}
        # Seconds with requests waiting, and the rows that were run in them; what is long past counts little.
        self._backlog_from: float | None = None
        self._backlog_s = 0.0
        self._backlog_rows = 0.0
        self.last = 0.0
        """When the last batch ended."""

    def ran(self, rows: int, started: float, ended: float, *, waiting: bool) -> None:
        """Takes one run of `rows` rows; `waiting` says whether requests were waiting when it ended."""
        size = rows.bit_length()
        runs = self._runs.get(size)
        if runs is None:
            runs = self._runs[size] = deque(maxlen=_RUNS)
        elif started - self.last > FRESH_S and ended - started < self._median[size]:
            runs.clear()  # it was tried again, and what made it slow is over
        runs.append(ended - started)
        self._median[size] = sorted(runs)[len(runs) // 2]
        if self._backlog_from is not None:
            passed_s = max(0.0, ended - self._backlog_from)
            memory_s = max(_MEMORY_S, _MEMORY_RUNS * (ended - started))
            kept = memory_s / (memory_s + passed_s)
            self._backlog_s = kept * self._backlog_s + passed_s
            self._backlog_rows = kept * self._backlog_rows + rows
        self._backlog_from = ended if waiting else None
        self.last = ended

    @property
    def is_in_backlog(self) -> bool:
        """Whether requests were waiting when the last batch ended, so that time counts until the next one does."""
        return self._backlog_from is not None

    def end_backlog(self) -> None:
        """Takes note that what waited has been given up: the time until the next run is nobody's wait."""
        self._backlog_from = None

    @property
    def row_s(self) -> float:
        """Time per row while requests wait, over all instances."""
        return self._backlog_s / self._backlog_rows if self._backlog_rows else 0.0

    def run_s(self, rows: int) -> float:
        """What recent runs of about `rows` rows took, in the median, or of fewer where none had as many."""
        median = self._median
        for size in range(rows.bit_length(), 0, -1):
            if size in median:
                return median[size]
        return 0.0
