"""What the models on one device share: how many instances run at once, whose turn it is, and the cores.

Turns are fair by time: of the models that wait for the device, the one that has used least of it goes first. Belongs
to the scheduling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trtserve_server.scheduling.reactor import Reactor

_CALMS_BY = 0.3
"""Of the way from the number of batches that ran side by side to the number that does now, at each start."""


class Share:
    """One model's part in a device. `wake` is called when the model waits for the device and may use it."""

    __slots__ = ("running", "used_s", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.used_s = 0.0
        self.running = 0


class Device:
    """One device. At most `max_running` instances run on it at once (0: any number); a CPU has `cores`, a GPU 0."""

    def __init__(self, name: str, reactor: Reactor, *, max_running: int = 0, cores: int = 0) -> None:
        self.name = name
        self.running = 0
        self._reactor = reactor
        self._max_running = max_running
        self._cores = cores
        self._busy_cores = 0
        self._crowd = 1.0
        self._waiting: set[Share] = set()
        self._waking = False
        self._floor_s = 0.0

    def may_run(self, share: Share) -> bool:
        """Whether an instance of the model may begin to run now; where not, it is woken when it may."""
        if self._has_room() and (not self._waiting or share.used_s <= min(other.used_s for other in self._waiting)):
            self._waiting.discard(share)
            return True
        self._waiting.add(share)
        return False

    def may_go_on(self, share: Share) -> bool:
        """Whether a running instance of the model may be given more behind its batch: not while others wait."""
        return not (self._waiting - {share})

    def threads(self, choices: Sequence[int]) -> int:
        """The number of threads for a batch that starts now, of those that the engine offers, in rising order.

        All cores where batches have come one at a time, else an equal part of them, and never more than are free.
        """
        part = min(self._cores / round(self._crowd), self._cores - self._busy_cores)
        return max((number for number in choices if number <= part), default=choices[0])

    def start(self, share: Share, threads: int) -> None:
        """Counts in an instance that begins to run, with so many threads; 0 where the engine looks after them."""
        self._level(share)
        share.running += 1
        self.running += 1
        self._crowd = max(self.running, self._crowd - _CALMS_BY * (self._crowd - self.running))
        self._busy_cores += threads

    def end(self, share: Share, threads: int, seconds: float) -> None:
        """Counts out an instance that ran for so long and has nothing left; wakes the model whose turn it is."""
        self.used(share, threads, seconds)
        share.running -= 1
        self.running -= 1
        self._busy_cores -= threads
        self.settle()

    def used(self, share: Share, threads: int, seconds: float) -> None:
        """Takes note of the time that a batch of the model took, which may never have been counted in."""
        self._level(share)
        share.used_s += seconds * max(1, threads)

    def settle(self) -> None:
        """Wakes the model whose turn it is, if any may run."""
        if self._waiting and not self._waking and self._has_room():
            self._waking = True
            self._reactor.soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        if self._waiting and self._has_room():
            first = min(self._waiting, key=lambda share: share.used_s)
            self._waiting.discard(first)
            first.wake()
            self.settle()

    def _has_room(self) -> bool:
        return not self._max_running or self.running < self._max_running

    def _level(self, share: Share) -> None:
        """Who has been away has no claim to the time that others used meanwhile."""
        if share.running == 0:
            share.used_s = max(share.used_s, self._floor_s)
        self._floor_s = max(self._floor_s, share.used_s)
