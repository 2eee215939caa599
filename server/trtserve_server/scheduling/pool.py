"""The instances of one model that can take a batch, by device: gives the one to be used next in the model's turn.

An idle instance comes first. One whose context pipelines can take further batches while it runs one; it is given them
only where nothing else is idle and no other model waits for the device. The device counts it once, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trtserve_server.scheduling.device import Device, Share
from trtserve_server.scheduling.instance import Instance


class _Group:
    """What the model has on one device."""

    __slots__ = ("busy", "device", "idle", "share")

    def __init__(self, device: Device, wake: Callable[[], None]) -> None:
        self.device = device
        self.share = Share(wake)
        self.idle: list[Instance] = []
        self.busy: dict[Instance, int] = {}  # those that run something, and how many batches each holds

    def spare(self) -> Instance | None:
        """The busy instance that holds least and can take one more."""
        free = [instance for instance, batches in self.busy.items() if batches < instance.capacity]
        return min(free, key=self.busy.__getitem__, default=None)


class Pool:
    """`wake` is called when a device that had no room has some; `threads` are the choices that the engine offers."""

    def __init__(self, wake: Callable[[], None], threads: Sequence[int] = ()) -> None:
        self._wake = wake
        self._threads = threads
        self._groups: dict[Device, _Group] = {}
        self._pipelined = False
        self.idle = 0
        """Instances that have nothing to run."""

    def add(self, instance: Instance, now: float) -> None:
        """Takes an instance that has nothing to run."""
        group = self._groups.get(instance.device)
        if group is None:
            group = self._groups[instance.device] = _Group(instance.device, self._wake)
        self._pipelined = self._pipelined or instance.capacity > 1
        instance.idle_since = now
        group.idle.append(instance)
        self.idle += 1

    def remove(self, instance: Instance) -> None:
        """Drops an instance that will not come back."""
        group = self._groups.get(instance.device)
        if group is None:
            return
        group.busy.pop(instance, None)
        if instance in group.idle:
            group.idle.remove(instance)
            self.idle -= 1

    def find(self) -> Instance | None:
        """The instance to be used next; None where none can take a batch or it is another model's turn."""
        if not self.idle and not self._pipelined:
            return None
        groups: Sequence[_Group] = list(self._groups.values())
        if len(groups) > 1:
            groups = sorted(groups, key=lambda group: group.device.running)
        for group in groups:
            if group.idle and group.device.may_run(group.share):
                return group.idle[-1]
        for group in groups if self._pipelined and not self.idle else ():
            instance = group.spare()
            if instance is not None and group.device.may_go_on(group.share):
                return instance
        return None

    def start(self, instance: Instance) -> int:
        """Counts in a batch for the instance that was found; the number of threads for it, 0 where it has none."""
        group = self._groups[instance.device]
        batches = group.busy.get(instance, 0)
        group.busy[instance] = batches + 1
        if batches:
            return 0  # what pipelines is on a GPU, where nobody chooses threads
        group.idle.pop()
        self.idle -= 1
        threads = group.device.threads(self._threads) if self._threads else 0
        group.device.start(group.share, threads)
        return threads

    def end(self, instance: Instance, threads: int, seconds: float, now: float) -> None:
        """Counts out a batch that took so many seconds; the instance is idle when it was the last."""
        group = self._groups[instance.device]
        batches = group.busy.pop(instance)
        if batches > 1:
            group.busy[instance] = batches - 1
            group.device.used(group.share, threads, seconds)
        else:
            self.add(instance, now)
            group.device.end(group.share, threads, seconds)

    def used(self, instance: Instance, threads: int, seconds: float) -> None:
        """Takes note of a run that was over before anything else could happen: all that is left of it is the time."""
        group = self._groups[instance.device]
        group.device.used(group.share, threads, seconds)

    def settle(self) -> None:
        """Lets other models use what this one leaves free."""
        for group in self._groups.values():
            group.device.settle()
