"""Measures what was asked for: levels in rounds, a search for capacity, or targets in turn. Keeps what is finished.

An interrupt is the `stop` event: the measurement under way ends early and counts, nothing new begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trtserve_client.load.capacity import Trial, best_rate, holds, next_rate
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import LoadError
from trtserve_client.load.lanes import Lane, ServerLane
from trtserve_client.load.live import LiveView
from trtserve_client.load.loads import Load, closed, loads_of, open_at
from trtserve_client.load.results import Level, Run

_PROBE_CONCURRENCY = 8
_COMPARE_ROUNDS = 5


@dataclass
class Session:
    """A measurement under way. `runs` holds what is finished, by target and load, in the order of its beginning."""

    stop: threading.Event
    view: LiveView
    runs: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    loads: dict[tuple[str, str], Load] = field(default_factory=dict)
    problem: LoadError | None = None
    """What ended it before its time."""

    def measure_levels(self, lane: ServerLane, config: LoadConfig) -> None:
        """Every load of the configuration, in as many rounds as it asks for."""
        loads = loads_of(config, lane.trace.offsets if lane.trace else None)
        self._rounds([(lane, load) for load in loads], config.repeats or 1)

    def measure_in_turn(self, lanes: Sequence[Lane], load_of: Callable[[Lane], Load], rounds: int) -> None:
        """Each lane once in every round: what disturbs the machine disturbs all."""
        self._rounds([(lane, load_of(lane)) for lane in lanes], rounds or _COMPARE_ROUNDS)

    def find_capacity(self, lane: ServerLane, config: LoadConfig) -> float:
        """The highest rate that holds the objective; 0 where none does."""
        probe = self._measure(lane, closed(_PROBE_CONCURRENCY))
        trials: list[Trial] = []
        start = max(probe.throughput / 2, 1.0) if probe else 1.0
        while probe and (rate := next_rate(trials, start)):
            held = self._holds(lane, rate, config.p99_ms) or self._holds(lane, rate, config.p99_ms)
            if self.stop.is_set() or self.problem:
                break
            trials.append(Trial(rate, held))
        return best_rate(trials)

    def _holds(self, lane: ServerLane, rate: float, p99_ms: float) -> bool:
        """One trial. A rate fails by failing twice, so that one hiccup of a machine does not end a search."""
        if self.stop.is_set() or self.problem:
            return False
        run = self._measure(lane, open_at(rate))
        if run is None:
            return False
        self._keep(lane, open_at(rate), run)
        return holds(run, p99_ms)

    def levels(self) -> list[Level]:
        """What is finished."""
        return [
            Level(target, label, self.loads[target, label].concurrency, self.loads[target, label].offered, runs)
            for (target, label), runs in self.runs.items()
        ]

    def _rounds(self, turns: Sequence[tuple[Lane, Load]], rounds: int) -> None:
        for number in range(rounds):
            for lane, load in turns:
                if self.stop.is_set() or self.problem:
                    return
                run = self._measure(lane, load, f" (round {number + 1} of {rounds})" if rounds > 1 else "")
                if run is not None:
                    self._keep(lane, load, run)

    def _measure(self, lane: Lane, load: Load, suffix: str = "") -> Run | None:
        self.view.begin(" ".join(filter(None, (lane.name, load.label))) + suffix)
        try:
            return lane.measure(load, self.stop, self.view.update)
        except LoadError as error:
            self.problem = error
            return None
        finally:
            self.view.end()

    def _keep(self, lane: Lane, load: Load, run: Run) -> None:
        if run.interrupted and not run.answered:
            return
        self.runs.setdefault((lane.name, load.label), []).append(run)
        self.loads[lane.name, load.label] = load


def capacity_levels(levels: Sequence[Level]) -> list[Level]:
    """The levels of a search in the order of their rates."""
    return sorted(levels, key=lambda level: level.offered)
