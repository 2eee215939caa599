"""What the models of one server share: the thread that schedules, the devices, the memory for requests in flight."""

from __future__ import annotations

from collections.abc import Callable

from trtserve_engines.cores import usable_cores
from trtserve_server.scheduling.budget import ByteBudget
from trtserve_server.scheduling.device import Device
from trtserve_server.scheduling.reactor import Reactor


class Host:
    """Made once per server. `max_running` instances run at once on each device; 0 = any number."""

    def __init__(self, reactor: Reactor, *, max_running: int = 0, max_inflight_bytes: int = 1 << 62) -> None:
        self.reactor = reactor
        self.budget = ByteBudget(max_inflight_bytes)
        self.on_device_lost: Callable[[str], None] = lambda reason: None
        """Called with the reason when a device cannot be used any more by this process."""
        self._max_running = max_running
        self._devices: dict[str, Device] = {}

    def device(self, name: str) -> Device:
        """The device called so by engines, such as "cpu" or "gpu:0"."""
        device = self._devices.get(name)
        if device is None:
            cores = usable_cores() if name == "cpu" else 0
            device = Device(name, self.reactor, max_running=self._max_running, cores=cores)
            self._devices[name] = device
        return device
