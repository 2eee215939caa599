"""The idle instances of one model, by device: gives one on the device where least runs, if it is the model's turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trtserve_server.scheduling.device import Device, Share
from trtserve_server.scheduling.instance import Instance


class _Group:
    """What the model has on one device."""

    __slots__ = ("device", "idle", "share")

    def __init__(self, device: Device, wake: Callable[[], None]) -> None:
        self.device = device
        self.share = Share(wake)
        self.idle: list[Instance] = []


class Pool:
    """`wake` is called when a device that had no room has some; `threads` are the choices that the engine offers."""

    def __init__(self, wake: Callable[[], None], threads: Sequence[int] = ()) -> None:
        self._wake = wake
        self._threads = threads
        self._groups: dict[Device, _Group] = {}
        self.idle = 0
        """Instances that have nothing to run."""

    def add(self, instance: Instance, now: float) -> None:
        """Takes an instance that is free."""
        group = self._groups.get(instance.device)
        if group is None:
            group = self._groups[instance.device] = _Group(instance.device, self._wake)
        instance.idle_since = now
        group.idle.append(instance)
        self.idle += 1

    def remove(self, instance: Instance) -> None:
        """Drops an instance that has nothing to run and will not come back."""
        group = self._groups.get(instance.device)
        if group is not None and instance in group.idle:
            group.idle.remove(instance)
            self.idle -= 1

    def find(self) -> Instance | None:
        """The instance to be used next; None where none is free or it is another model's turn on every device."""
        if not self.idle:
            return None
        groups: Sequence[_Group] = list(self._groups.values())
        if len(groups) > 1:
            groups = sorted(groups, key=lambda group: group.device.running)
        for group in groups:
            if group.idle and group.device.may_run(group.share):
                return group.idle[-1]
        return None

    def start(self, instance: Instance) -> int:
        """Takes out the instance that was found, to run a batch; the number of threads for it, 0 where it has none."""
        group = self._groups[instance.device]
        group.idle.pop()
        self.idle -= 1
        threads = group.device.threads(self._threads) if self._threads else 0
        group.device.start(group.share, threads)
        return threads

    def end(self, instance: Instance, threads: int, seconds: float) -> None:
        """Gives back what `start` took of the device, after a run of so many seconds."""
        group = self._groups[instance.device]
        group.device.end(group.share, threads, seconds)

    def settle(self) -> None:
        """Lets other models use what this one leaves free."""
        for group in self._groups.values():
            group.device.settle()
