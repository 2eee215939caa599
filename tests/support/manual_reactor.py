"""A Reactor whose clock stands still until a test moves it, and engines' work that a test finishes by hand."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from trtserve_engines.engine import BatchResult
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.device import Device


class ManualReactor:
    """Time and wake-ups under control: `run()` does what is pending, `advance(seconds)` moves the clock."""

    def __init__(self) -> None:
        self.time = 0.0
        self.runs: list[Batch] = []
        """Every batch that an instance was given, in order."""
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def now(self) -> float:
        return self.time

    def soon(self, call: Callable[[], None], /) -> None:
        self._soon.append(call)

    def at(self, time: float, call: Callable[[], None]) -> Callable[[], None]:
        number = next(self._numbers)
        heapq.heappush(self._timers, (time, number, call))

        def cancel() -> None:
            self._timers = [timer for timer in self._timers if timer[1] != number]
            heapq.heapify(self._timers)

        return cancel

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        self._soon.append(lambda: call(*arguments))

    def run(self) -> None:
        """Does everything that is pending now."""
        while self._soon:
            self._soon.popleft()()

    def advance(self, seconds: float) -> None:
        """Moves the clock, firing timers on the way in their order."""
        end = self.time + seconds
        self.run()
        while self._timers and self._timers[0][0] <= end:
            self.time, _, call = heapq.heappop(self._timers)
            call()
            self.run()
        self.time = end

    @property
    def timers(self) -> list[float]:
        """When the pending timers fire."""
        return sorted(timer[0] for timer in self._timers)


class ManualInstance:
    """An Instance that holds each batch until the test finishes it; one that is to be run here takes `here_s`."""

    def __init__(self, name: str, on_finished: Callable[..., None], reactor: ManualReactor, device: Device) -> None:
        self.name = name
        self.device = device
        self.idle_since = 0.0
        self.capacity = 1
        self.stopped = False
        self.batch: Batch | None = None
        self.batches: list[Batch] = []
        self.here: list[Batch] = []
        self.here_s = 0.0
        self.here_error: Exception | None = None
        self._on_finished = on_finished
        self._reactor = reactor

    def start(self) -> None:
        pass

    def run(self, batch: Batch) -> None:
        assert self.batch is None, "an instance got a batch while it had one"
        self.batch = batch
        self.batches.append(batch)
        self._reactor.runs.append(batch)
        self._started = self._reactor.now()

    def run_here(self, batch: Batch) -> BatchResult | Exception:
        assert self.batch is None, "a batch was run while the instance had one"
        self.here.append(batch)
        self._reactor.time += self.here_s
        return self.here_error or _echo(batch)

    def stop(self) -> None:
        self.stopped = True

    def join(self, timeout_s: float | None = None) -> bool:
        return True

    def finish(self, outcome: BatchResult | Exception | None = None) -> None:
        """Gives back the batch, by default with each input as an output of the same name."""
        batch, self.batch = self.batch, None
        assert batch is not None, "the instance has no batch"
        self._on_finished(self, batch, outcome or _echo(batch), self._started, self._reactor.now())
        self._reactor.run()


def _echo(batch: Batch) -> BatchResult:
    return BatchResult({name: np.concatenate([part[name] for part in batch.parts]) for name in batch.parts[0]}, 1, 2, 3)
