"""The port on cuda.bindings.driver, NVIDIA's own package. Knows graphs and the handles of events."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import driver as cuda

from trtserve_engines.cuda.api import NON_BLOCKING, Event, GpuInfo, Memory, PinnedBuffer, Stream
from trtserve_engines.cuda.driver_library import text_from_uuid
from trtserve_engines.cuda.errors import cuda_error
from trtserve_engines.cuda.ownership import DevicesOfThreads
from trtserve_engines.device import GpuIdentity

_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: pinned for every GPU
_BLOCKING_SYNC, _DISABLE_TIMING = 1, 2
_LAZY_PEER_ACCESS = 1
_THREAD_LOCAL = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_ATTRIBUTE = cuda.CUdevice_attribute
_NOT_READY = cuda.CUresult.CUDA_ERROR_NOT_READY


def _check(call: str, result: tuple[Any, ...]) -> Any:
    """What a call gave: nothing, one value, or several. Raises CudaError where it failed."""
    if result[0]:
        raise _error(call, result[0])
    return result[1] if len(result) == 2 else result[1:]


def _error(call: str, code: Any) -> Exception:
    (_, name), (_, text) = cuda.cuGetErrorName(code), cuda.cuGetErrorString(code)
    return cuda_error(call, int(code), (name or b"unknown").decode(), (text or b"").decode())


class BindingsPinnedBuffer:
    """See PinnedBuffer."""

    def __init__(self, size: int) -> None:
        some = max(size, 1)
        self.address = int(_check("cuMemHostAlloc", cuda.cuMemHostAlloc(some, _PORTABLE)))
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * some).from_address(self.address))[:size]

    def free(self) -> None:
        """See PinnedBuffer."""
        _check("cuMemFreeHost", cuda.cuMemFreeHost(self.address))


class BindingsDeviceBuffer:
    """See DeviceBuffer."""

    def __init__(self, address: int, size: int, *, is_shared: bool) -> None:
        self.address = address
        self.size = size
        self._is_shared = is_shared

    def ipc_handle(self) -> bytes:
        """See DeviceBuffer."""
        handle = _check("cuIpcGetMemHandle", cuda.cuIpcGetMemHandle(self.address))
        return ctypes.string_at(handle.getPtr(), 64)

    def free(self) -> None:
        """See DeviceBuffer."""
        if self._is_shared:
            _check("cuIpcCloseMemHandle", cuda.cuIpcCloseMemHandle(self.address))
        else:
            _check("cuMemFree", cuda.cuMemFree(self.address))


class BindingsEvent:
    """See Event."""

    def __init__(self, flags: int) -> None:
        self._native = _check("cuEventCreate", cuda.cuEventCreate(flags))
        self.handle = _handle(self._native)

    def record(self, stream: Stream) -> None:
        """See Event."""
        _check("cuEventRecord", cuda.cuEventRecord(self._native, stream.handle))

    def query(self) -> bool:
        """See Event."""
        (code,) = cuda.cuEventQuery(self._native)
        if code and code != _NOT_READY:
            raise _error("cuEventQuery", code)
        return not code

    def synchronize(self) -> None:
        """See Event."""
        _check("cuEventSynchronize", cuda.cuEventSynchronize(self._native))

    def milliseconds_since(self, earlier: Event) -> float:
        """See Event."""
        return float(_check("cuEventElapsedTime", cuda.cuEventElapsedTime(earlier.handle, self.handle)))

    def free(self) -> None:
        """See Event."""
        _check("cuEventDestroy", cuda.cuEventDestroy(self._native))


class BindingsGraph:
    """See Graph."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """See Graph."""
        _check("cuGraphLaunch", cuda.cuGraphLaunch(self._executable, stream.handle))

    def free(self) -> None:
        """See Graph."""
        _check("cuGraphExecDestroy", cuda.cuGraphExecDestroy(self._executable))


class BindingsStream:
    """See Stream."""

    def __init__(self) -> None:
        self._native = _check("cuStreamCreate", cuda.cuStreamCreate(NON_BLOCKING))
        self.handle = _handle(self._native)

    def copy_to_device(self, target: int, source: PinnedBuffer, size: int, offset: int = 0) -> None:
        """See Stream."""
        result = cuda.cuMemcpyHtoDAsync(target, source.address + offset, size, self._native)
        _check("cuMemcpyHtoDAsync", result)

    def copy_to_host(self, target: PinnedBuffer, source: int, size: int, offset: int = 0) -> None:
        """See Stream."""
        result = cuda.cuMemcpyDtoHAsync(target.address + offset, source, size, self._native)
        _check("cuMemcpyDtoHAsync", result)

    def copy_on_device(self, target: int, source: int, size: int) -> None:
        """See Stream."""
        _check("cuMemcpyDtoDAsync", cuda.cuMemcpyDtoDAsync(target, source, size, self._native))

    def wait_for(self, event: Event) -> None:
        """See Stream."""
        _check("cuStreamWaitEvent", cuda.cuStreamWaitEvent(self._native, event.handle, 0))

    def synchronize(self) -> None:
        """See Stream."""
        _check("cuStreamSynchronize", cuda.cuStreamSynchronize(self._native))

    def capture(self, enqueue: Callable[[], None]) -> BindingsGraph:
        """See Stream."""
        _check("cuStreamBeginCapture", cuda.cuStreamBeginCapture(self._native, _THREAD_LOCAL))
        try:
            enqueue()
        except BaseException:
            # Whatever this gives, the capture is over; the error that counts is the first.
            _, graph = cuda.cuStreamEndCapture(self._native)
            if graph:
                cuda.cuGraphDestroy(graph)
            raise
        graph = _check("cuStreamEndCapture", cuda.cuStreamEndCapture(self._native))
        try:
            return BindingsGraph(_check("cuGraphInstantiate", cuda.cuGraphInstantiate(graph, 0)))
        finally:
            cuda.cuGraphDestroy(graph)

    def free(self) -> None:
        """See Stream."""
        _check("cuStreamDestroy", cuda.cuStreamDestroy(self._native))


class BindingsDevice:
    """See Device."""

    def __init__(self, index: int, threads: DevicesOfThreads[BindingsDevice]) -> None:
        self.index = index
        self._threads = threads
        self._device = _check("cuDeviceGet", cuda.cuDeviceGet(index))
        context = _check("cuDevicePrimaryCtxRetain", cuda.cuDevicePrimaryCtxRetain(self._device))
        _check("cuCtxPushCurrent", cuda.cuCtxPushCurrent(context))

    def end(self) -> None:
        """Undoes what the constructor did; on the same thread."""
        _check("cuCtxPopCurrent", cuda.cuCtxPopCurrent())
        _check("cuDevicePrimaryCtxRelease", cuda.cuDevicePrimaryCtxRelease(self._device))

    def close(self) -> None:
        """See Device."""
        self._threads.close()

    def abandon(self) -> None:
        """See Device."""
        if self._threads.forget():
            cuda.cuCtxPopCurrent()

    def memory(self) -> Memory:
        """See Device."""
        return Memory(*_check("cuMemGetInfo", cuda.cuMemGetInfo()))

    def stream(self) -> BindingsStream:
        """See Device."""
        return BindingsStream()

    def event(self, *, timing: bool = False) -> BindingsEvent:
        """See Device."""
        return BindingsEvent(_BLOCKING_SYNC | (0 if timing else _DISABLE_TIMING))

    def pinned(self, size: int) -> BindingsPinnedBuffer:
        """See Device."""
        return BindingsPinnedBuffer(size)

    def allocate(self, size: int) -> BindingsDeviceBuffer:
        """See Device."""
        address = int(_check("cuMemAlloc", cuda.cuMemAlloc(max(size, 1))))
        return BindingsDeviceBuffer(address, size, is_shared=False)

    def open_ipc(self, handle: bytes) -> BindingsDeviceBuffer:
        """See Device."""
        native = cuda.CUipcMemHandle()
        ctypes.memmove(native.getPtr(), handle, 64)
        address = _check("cuIpcOpenMemHandle", cuda.cuIpcOpenMemHandle(native, _LAZY_PEER_ACCESS))
        return BindingsDeviceBuffer(int(address), 0, is_shared=True)

    def write(self, target: int, source: np.ndarray) -> None:
        """See Device."""
        _check("cuMemcpyHtoD", cuda.cuMemcpyHtoD(target, source.ctypes.data, source.nbytes))

    def read(self, target: np.ndarray, source: int) -> None:
        """See Device."""
        _check("cuMemcpyDtoH", cuda.cuMemcpyDtoH(target.ctypes.data, source, target.nbytes))


class BindingsDriver:
    """See Driver. Raises CudaError where the driver cannot be initialised."""

    name = "cuda-bindings"
    has_graphs = True

    def __init__(self) -> None:
        _check("cuInit", cuda.cuInit(0))
        self._devices = DevicesOfThreads(self._start, BindingsDevice.end)

    def gpus(self) -> tuple[GpuInfo, ...]:
        """See Driver."""
        version = _check("cuDriverGetVersion", cuda.cuDriverGetVersion())
        count = _check("cuDeviceGetCount", cuda.cuDeviceGetCount())
        return tuple(_describe(index, version) for index in range(count))

    def open(self, index: int) -> BindingsDevice:
        """See Driver."""
        return self._devices.open(index)

    def _start(self, index: int) -> BindingsDevice:
        return BindingsDevice(index, self._devices)


def _describe(index: int, driver_version: int) -> GpuInfo:
    device = _check("cuDeviceGet", cuda.cuDeviceGet(index))

    def attribute(which: Any) -> int:
        return int(_check("cuDeviceGetAttribute", cuda.cuDeviceGetAttribute(which, device)))

    identity = GpuIdentity(
        name=_text(_check("cuDeviceGetName", cuda.cuDeviceGetName(256, device))),
        compute_capability=(
            attribute(_ATTRIBUTE.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            attribute(_ATTRIBUTE.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        ),
        sm_count=attribute(_ATTRIBUTE.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        memory_bytes=int(_check("cuDeviceTotalMem", cuda.cuDeviceTotalMem(device))),
        driver_version=(driver_version // 1000, driver_version % 1000 // 10),
    )
    pci_bus_id = _text(_check("cuDeviceGetPCIBusId", cuda.cuDeviceGetPCIBusId(32, device)))
    uuid = bytes(_check("cuDeviceGetUuid", cuda.cuDeviceGetUuid(device)).bytes)
    return GpuInfo(index, identity, pci_bus_id, text_from_uuid(uuid))


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode()


def _handle(native: Any) -> int:
    """The pointer that a handle is, as other libraries take it."""
    return ctypes.c_void_p.from_address(native.getPtr()).value or 0
