"""The calls about shared memory: register, status, unregister, for system and for CUDA memory."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from trtserve_protos import oip
from trtserve_server.errors import NotSupported, RegionNotFound
from trtserve_server.rpc.handlers import MessageCall
from trtserve_server.shared_memory.cuda import CudaMemory, CudaRegion
from trtserve_server.shared_memory.offer import SharedMemoryOffer
from trtserve_server.shared_memory.regions import Regions
from trtserve_server.shared_memory.system import SystemRegion, open_system_region
from trtserve_server.transport.call import Call

if TYPE_CHECKING:
    from trtserve_protos.oip import (
        CudaSharedMemoryRegisterRequest,
        CudaSharedMemoryRegisterResponse,
        CudaSharedMemoryStatusRequest,
        CudaSharedMemoryStatusResponse,
        CudaSharedMemoryUnregisterRequest,
        CudaSharedMemoryUnregisterResponse,
        SystemSharedMemoryRegisterRequest,
        SystemSharedMemoryRegisterResponse,
        SystemSharedMemoryStatusRequest,
        SystemSharedMemoryStatusResponse,
        SystemSharedMemoryUnregisterRequest,
        SystemSharedMemoryUnregisterResponse,
    )

log = logging.getLogger(__name__)

_CALLS = ("Register", "Status", "Unregister")
_OFF = "shared memory is switched off at this server; its clients may use it with --allow-client-shared-memory"


def shared_memory_calls(offer: SharedMemoryOffer) -> dict[str, MessageCall]:
    """Every call about shared memory by its name; those that are not offered say why."""
    if offer.regions is None:
        return _refusals("System", _OFF) | _refusals("Cuda", _OFF)
    system = _named("System", SystemCalls(offer.regions, offer.prefix))
    if offer.cuda is None:
        reason = f"no GPU can be used here ({offer.why_no_cuda}); register system shared memory"
        return system | _refusals("Cuda", reason)
    return system | _named("Cuda", CudaCalls(offer.regions, offer.cuda))


class SystemCalls:
    """The calls about system shared memory; see `shared_memory_calls`."""

    def __init__(self, regions: Regions, prefix: str) -> None:
        self._regions = regions
        self._prefix = prefix

    async def register(
        self, request: SystemSharedMemoryRegisterRequest, call: Call
    ) -> SystemSharedMemoryRegisterResponse:
        """Makes a client's region known. Raises InvalidRequest, RegionExists, RegionLimit or RegionNotFound."""
        self._regions.check_free(request.name)
        region = open_system_region(request.name, request.key, request.offset, request.byte_size, prefix=self._prefix)
        self._regions.add(region)
        how = "copied: " + region.why_copied if region.why_copied else "read and written in place where they can be"
        log.info("shared memory region %r of key %r is registered; tensors are %s", region.name, region.key, how)
        return oip.SystemSharedMemoryRegisterResponse()

    async def status(self, request: SystemSharedMemoryStatusRequest, call: Call) -> SystemSharedMemoryStatusResponse:
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
        self, request: SystemSharedMemoryUnregisterRequest, call: Call
    ) -> SystemSharedMemoryUnregisterResponse:
        """Forgets a region, or every one where no name is given; requests under way keep theirs."""
        self._regions.remove(request.name, SystemRegion)
        return oip.SystemSharedMemoryUnregisterResponse()


class CudaCalls:
    """The calls about CUDA shared memory; see `shared_memory_calls`."""

    def __init__(self, regions: Regions, memory: CudaMemory) -> None:
        self._regions = regions
        self._memory = memory

    async def register(self, request: CudaSharedMemoryRegisterRequest, call: Call) -> CudaSharedMemoryRegisterResponse:
        """Makes a client's region known. Raises InvalidRequest, RegionExists or RegionLimit."""
        self._regions.check_free(request.name)
        handle, device_id, byte_size = request.raw_handle, request.device_id, request.byte_size
        loop = asyncio.get_running_loop()
        # Not here: the first use of a GPU takes a good part of a second.
        region = await loop.run_in_executor(None, self._memory.open, request.name, handle, device_id, byte_size)
        self._regions.add(region)
        return oip.CudaSharedMemoryRegisterResponse()

    async def status(self, request: CudaSharedMemoryStatusRequest, call: Call) -> CudaSharedMemoryStatusResponse:
        """What is registered: the region of the name given, or all. Raises RegionNotFound."""
        response = oip.CudaSharedMemoryStatusResponse()
        for region in self._regions.of_kind(CudaRegion):
            if request.name in ("", region.name):
                status = response.regions[region.name]
                status.name, status.device_id, status.byte_size = region.name, region.device_id, region.byte_size
        if request.name and not response.regions:
            raise RegionNotFound(f"no CUDA shared memory region {request.name!r} is registered")
        return response

    async def unregister(
        self, request: CudaSharedMemoryUnregisterRequest, call: Call
    ) -> CudaSharedMemoryUnregisterResponse:
        """Forgets a region, or every one where no name is given; requests under way keep theirs."""
        self._regions.remove(request.name, CudaRegion)
        return oip.CudaSharedMemoryUnregisterResponse()


def _named(kind: str, calls: SystemCalls | CudaCalls) -> dict[str, MessageCall]:
    methods: tuple[MessageCall, ...] = (calls.register, calls.status, calls.unregister)
    return {f"{kind}SharedMemory{call}": method for call, method in zip(_CALLS, methods, strict=True)}


def _refusals(kind: str, reason: str) -> dict[str, MessageCall]:
    return {name: _refusal(name, reason) for name in (f"{kind}SharedMemory{call}" for call in _CALLS)}


def _refusal(name: str, reason: str) -> MessageCall:
    async def refuse(request: object, call: Call) -> object:
        raise NotSupported(f"{name} is not offered: {reason}")

    return refuse
