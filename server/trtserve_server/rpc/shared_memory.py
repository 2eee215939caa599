"""The calls about shared memory: register, status, unregister, for system and for CUDA memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtserve_protos import oip
from trtserve_server.errors import NotSupported, RegionNotFound
from trtserve_server.rpc.handlers import Context, MessageCall
from trtserve_server.shared_memory.regions import Regions
from trtserve_server.shared_memory.system import SystemRegion, open_system_region

if TYPE_CHECKING:
    from trtserve_protos.oip import (
        SystemSharedMemoryRegisterRequest,
        SystemSharedMemoryRegisterResponse,
        SystemSharedMemoryStatusRequest,
        SystemSharedMemoryStatusResponse,
        SystemSharedMemoryUnregisterRequest,
        SystemSharedMemoryUnregisterResponse,
    )


_CALLS = ("Register", "Status", "Unregister")


def shared_memory_calls(regions: Regions | None, prefix: str) -> dict[str, MessageCall]:
    """Every call about shared memory by its name. `regions` is None where clients may not share memory.

    Keys of system shared memory must begin with `prefix`.
    """
    if regions is None:
        off = "shared memory is switched off at this server; its clients may use it with --allow-client-shared-memory"
        return _refusals("System", off) | _refusals("Cuda", off)
    system = SystemMemory(regions, prefix)
    return {
        "SystemSharedMemoryRegister": system.register,
        "SystemSharedMemoryStatus": system.status,
        "SystemSharedMemoryUnregister": system.unregister,
        **_refusals("Cuda", "no model of this server runs on a GPU; register system shared memory"),
    }


class SystemMemory:
    """The calls about system shared memory; see `shared_memory_calls`."""

    def __init__(self, regions: Regions, prefix: str) -> None:
        self._regions = regions
        self._prefix = prefix

    async def register(
        self, request: SystemSharedMemoryRegisterRequest, context: Context
    ) -> SystemSharedMemoryRegisterResponse:
        """Makes a client's region known. Raises InvalidRequest, RegionExists, RegionLimit or RegionNotFound."""
        self._regions.check_free(request.name)
        self._regions.add(
            open_system_region(request.name, request.key, request.offset, request.byte_size, prefix=self._prefix)
        )
        return oip.SystemSharedMemoryRegisterResponse()

    async def status(
        self, request: SystemSharedMemoryStatusRequest, context: Context
    ) -> SystemSharedMemoryStatusResponse:
        """What is registered: the region of the name given, or all. Raises RegionNotFound."""
        response = oip.SystemSharedMemoryStatusResponse()
        for region in self._regions.of_kind(SystemRegion):
            if request.name in ("", region.name):
                status = response.regions[region.name]
                status.name, status.key = region.name, region.key
                status.offset, status.byte_size = region.offset, region.byte_size
        if request.name and not response.regions:
            raise RegionNotFound(f"no system shared memory region {request.name!r} is registered")
        return response

    async def unregister(
        self, request: SystemSharedMemoryUnregisterRequest, context: Context
    ) -> SystemSharedMemoryUnregisterResponse:
        """Forgets a region, or every one where no name is given; requests under way keep theirs."""
        self._regions.remove(request.name, SystemRegion)
        return oip.SystemSharedMemoryUnregisterResponse()


def _refusals(kind: str, reason: str) -> dict[str, MessageCall]:
    return {name: _refusal(name, reason) for name in (f"{kind}SharedMemory{call}" for call in _CALLS)}


def _refusal(name: str, reason: str) -> MessageCall:
    async def refuse(request: object, context: Context) -> object:
        raise NotSupported(f"{name} is not offered: {reason}")

    return refuse
