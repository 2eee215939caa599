"""The port on pycuda. It has everything but graphs and the handles of events.

pycuda ties each object to the thread of its context and cleans up where the last reference is dropped, which is why
`free` here drops it. Its exceptions carry no number; driver_library.py finds it by the text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import pycuda.driver as cuda

from trtserve_engines.cuda.api import NON_BLOCKING, Event, GpuInfo, Graph, Memory, PinnedBuffer, Stream
from trtserve_engines.cuda.driver_library import DriverLibrary
from trtserve_engines.cuda.errors import CudaError
from trtserve_engines.cuda.immortal import keep_for_good
from trtserve_engines.cuda.ownership import DevicesOfThreads
from trtserve_engines.device import GpuIdentity

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

_ATTRIBUTE = cuda.device_attribute
_library = DriverLibrary()


def _raising_cuda_errors(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    @wraps(function)
    def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
        try:
            return function(*arguments, **options)
        except cuda.Error as error:
            raise _library.error_from_text(str(error)) from None

    return call


class PycudaPinnedBuffer:
    """See PinnedBuffer."""

    @_raising_cuda_errors
    def __init__(self, size: int) -> None:
        memory = cuda.pagelocked_empty(max(size, 1), np.uint8, mem_flags=cuda.host_alloc_flags.PORTABLE)
        self._allocation = memory.base
        self.address: int = memory.ctypes.data
        self.array: np.ndarray = memory[:size]

    @_raising_cuda_errors
    def free(self) -> None:
        """See PinnedBuffer."""
        self._allocation.free()


class PycudaDeviceBuffer:
    """See DeviceBuffer."""

    @_raising_cuda_errors
    def __init__(self, size: int) -> None:
        self._allocation = cuda.mem_alloc(max(size, 1))
        self.address = int(self._allocation)
        self.size = size

    @_raising_cuda_errors
    def ipc_handle(self) -> bytes:
        """See DeviceBuffer."""
        return bytes(cuda.mem_get_ipc_handle(self._allocation))

    @_raising_cuda_errors
    def free(self) -> None:
        """See DeviceBuffer."""
        self._allocation.free()


class PycudaSharedBuffer:
    """Memory of another process; see DeviceBuffer."""

    size = 0

    @_raising_cuda_errors
    def __init__(self, handle: bytes) -> None:
        self._memory = cuda.IPCMemoryHandle(bytearray(handle))
        self.address = int(self._memory)

    @_raising_cuda_errors
    def ipc_handle(self) -> bytes:
        """See DeviceBuffer; the driver refuses to pass on what belongs to another process."""
        return bytes(cuda.mem_get_ipc_handle(self.address))

    @_raising_cuda_errors
    def free(self) -> None:
        """See DeviceBuffer."""
        self._memory.close()


class PycudaEvent:
    """See Event."""

    handle: int | None = None

    @_raising_cuda_errors
    def __init__(self, *, timing: bool) -> None:
        flags = cuda.event_flags.BLOCKING_SYNC | (0 if timing else cuda.event_flags.DISABLE_TIMING)
        self.native = cuda.Event(flags)

    @_raising_cuda_errors
    def record(self, stream: Stream) -> None:
        """See Event."""
        self.native.record(stream.native)  # type: ignore[attr-defined]

    @_raising_cuda_errors
    def query(self) -> bool:
        """See Event."""
        return bool(self.native.query())

    @_raising_cuda_errors
    def synchronize(self) -> None:
        """See Event."""
        self.native.synchronize()

    @_raising_cuda_errors
    def milliseconds_since(self, earlier: Event) -> float:
        """See Event."""
        return float(self.native.time_since(earlier.native))  # type: ignore[attr-defined]

    def free(self) -> None:
        """See Event."""
        del self.native


class PycudaStream:
    """See Stream."""

    @_raising_cuda_errors
    def __init__(self) -> None:
        self.native = cuda.Stream(NON_BLOCKING)
        self.handle = int(self.native.handle)

    @_raising_cuda_errors
    def copy_to_device(self, target: int, source: PinnedBuffer, size: int, offset: int = 0) -> None:
        """See Stream."""
        cuda.memcpy_htod_async(target, source.array[offset : offset + size], self.native)

    @_raising_cuda_errors
    def copy_to_host(self, target: PinnedBuffer, source: int, size: int, offset: int = 0) -> None:
        """See Stream."""
        cuda.memcpy_dtoh_async(target.array[offset : offset + size], source, self.native)

    @_raising_cuda_errors
    def copy_on_device(self, target: int, source: int, size: int) -> None:
        """See Stream."""
        cuda.memcpy_dtod_async(target, source, size, self.native)

    @_raising_cuda_errors
    def wait_for(self, event: Event) -> None:
        """See Stream."""
        self.native.wait_for_event(event.native)  # type: ignore[attr-defined]

    @_raising_cuda_errors
    def synchronize(self) -> None:
        """See Stream."""
        self.native.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """See Stream: pycuda has no graphs, as PycudaDriver.has_graphs says."""
        raise CudaError("cuStreamBeginCapture", 801, "CUDA_ERROR_NOT_SUPPORTED", "pycuda has no CUDA graphs")

    def free(self) -> None:
        """See Stream."""
        del self.native


class PycudaDevice:
    """See Device."""

    @_raising_cuda_errors
    def __init__(self, index: int, threads: DevicesOfThreads[PycudaDevice]) -> None:
        self.index = index
        self._threads = threads
        self._context = cuda.Device(index).retain_primary_context()
        self._context.push()

    @_raising_cuda_errors
    def end(self) -> None:
        """Undoes what the constructor did; on the same thread."""
        context = self._context.handle
        self._context.detach()
        # pycuda takes detaching for popping too, which is true of contexts that it made itself, not of primary ones.
        _library.pop_if_current(context)

    def close(self) -> None:
        """See Device."""
        self._threads.close()

    def abandon(self) -> None:
        """See Device. A thread that ends with a context on pycuda's stack takes the process with it."""
        if self._threads.forget():
            keep_for_good(self._context)
            cuda.Context.pop()

    @_raising_cuda_errors
    def memory(self) -> Memory:
        """See Device."""
        return Memory(*cuda.mem_get_info())

    def stream(self) -> PycudaStream:
        """See Device."""
        return PycudaStream()

    def event(self, *, timing: bool = False) -> PycudaEvent:
        """See Device."""
        return PycudaEvent(timing=timing)

    def pinned(self, size: int) -> PycudaPinnedBuffer:
        """See Device."""
        return PycudaPinnedBuffer(size)

    def allocate(self, size: int) -> PycudaDeviceBuffer:
        """See Device."""
        return PycudaDeviceBuffer(size)

    def open_ipc(self, handle: bytes) -> PycudaSharedBuffer:
        """See Device."""
        return PycudaSharedBuffer(handle)

    @_raising_cuda_errors
    def write(self, target: int, source: np.ndarray) -> None:
        """See Device."""
        cuda.memcpy_htod(target, source)

    @_raising_cuda_errors
    def read(self, target: np.ndarray, source: int) -> None:
        """See Device."""
        cuda.memcpy_dtoh(target, source)


class PycudaDriver:
    """See Driver. Raises CudaError where the driver cannot be initialised."""

    name = "pycuda"
    has_graphs = False

    @_raising_cuda_errors
    def __init__(self) -> None:
        cuda.init()
        self._devices = DevicesOfThreads(self._start, PycudaDevice.end)

    @_raising_cuda_errors
    def gpus(self) -> tuple[GpuInfo, ...]:
        """See Driver."""
        version = cuda.get_driver_version()
        return tuple(_describe(index, version) for index in range(cuda.Device.count()))

    def open(self, index: int) -> PycudaDevice:
        """See Driver."""
        return self._devices.open(index)

    def _start(self, index: int) -> PycudaDevice:
        return PycudaDevice(index, self._devices)


def _describe(index: int, driver_version: int) -> GpuInfo:
    device = cuda.Device(index)
    identity = GpuIdentity(
        name=device.name(),
        compute_capability=device.compute_capability(),
        sm_count=device.get_attribute(_ATTRIBUTE.MULTIPROCESSOR_COUNT),
        memory_bytes=device.total_memory(),
        driver_version=(driver_version // 1000, driver_version % 1000 // 10),
    )
    return GpuInfo(index, identity, device.pci_bus_id(), _library.uuid(index))
