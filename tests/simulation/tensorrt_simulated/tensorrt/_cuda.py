"""The device that engines run on: the stand-in libcuda, or, without any driver, the calling thread itself.

SIMULATED_TENSORRT_DEVICE = "libcuda" (the default) or "host". On "host" work is done at once and device memory is
whatever address is given; it serves tests of what needs TensorRT but no stream.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable
from typing import Any

Work = Callable[[], None]

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_COMPUTE_MAJOR, _COMPUTE_MINOR, _SM_COUNT = 75, 76, 16


class CudaFailure(Exception):
    """A driver call that did not succeed."""


class HostDevice:
    """No driver: every enqueue is done at once."""

    def identity(self) -> dict[str, Any]:
        return {"name": "Simulated GPU", "compute": [9, 0], "sm_count": 132, "memory": 80 << 30, "driver": 13000}

    def ordinal(self) -> int:
        return 0

    def enqueue(self, stream: int, work: Work) -> None:
        work()

    def is_capturing(self, stream: int) -> bool:
        return False

    def synchronize(self, stream: int) -> None:
        pass

    def record(self, event: int, stream: int) -> None:
        pass

    def allocate(self, size: int) -> int:
        return 0

    def free(self, address: int) -> None:
        pass


class CudaDevice:
    """The driver in this process. Everything is on the device that is current in the calling thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._numbers = itertools.count(1)
        self._work: dict[int, tuple[Work, bool]] = {}
        self._entry = _HOST_FUNCTION(self._run)
        self._contexts: dict[int, ctypes.c_void_p] = {}

    def identity(self) -> dict[str, Any]:
        device, name, memory = self.ordinal(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        self._call("cuDeviceGetName", name, 256, device)
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        return {
            "name": name.value.decode(),
            "compute": [self._attribute(_COMPUTE_MAJOR, device), self._attribute(_COMPUTE_MINOR, device)],
            "sm_count": self._attribute(_SM_COUNT, device),
            "memory": memory.value,
            "driver": self._int("cuDriverGetVersion"),
        }

    def ordinal(self) -> int:
        """The current device. As the runtime API does, makes device 0 current where none is."""
        context = ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(context))
        if not context:
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
            self._call("cuCtxSetCurrent", context)
        return self._int("cuCtxGetDevice")

    def enqueue(self, stream: int, work: Work) -> None:
        """Puts `work` on the stream, or, while that is captured, into the graph, whose every launch does it again."""
        is_captured = self.is_capturing(stream)
        number = next(self._numbers)
        self._work[number] = (work, is_captured)
        try:
            self._call("cuLaunchHostFunc", ctypes.c_void_p(stream), self._entry, ctypes.c_void_p(number))
        except CudaFailure:
            del self._work[number]
            raise

    def is_capturing(self, stream: int) -> bool:
        status = ctypes.c_int()
        self._call("cuStreamIsCapturing", ctypes.c_void_p(stream), ctypes.byref(status))
        return status.value != 0

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def record(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def allocate(self, size: int) -> int:
        """Device memory that `free` gives back, from any thread."""
        if size == 0:
            return 0
        self.ordinal()
        address, context = ctypes.c_uint64(), ctypes.c_void_p()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self._call("cuCtxGetCurrent", ctypes.byref(context))
        self._contexts[address.value] = context
        return address.value

    def free(self, address: int) -> None:
        if address == 0:
            return
        self._call("cuCtxPushCurrent_v2", self._contexts.pop(address))
        self._call("cuMemFree_v2", ctypes.c_uint64(address))
        self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _run(self, number: int) -> None:
        work, is_captured = self._work[number]
        if not is_captured:
            del self._work[number]
        work()

    def _attribute(self, attribute: int, device: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value

    def _int(self, function: str) -> int:
        value = ctypes.c_int()
        self._call(function, ctypes.byref(value))
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise CudaFailure(f"Cuda failure: {(text.value or b'unknown error').decode()} ({function} gave {code})")


def _open() -> HostDevice | CudaDevice | None:
    if os.environ.get("SIMULATED_TENSORRT_DEVICE", "libcuda") == "host":
        return HostDevice()
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int()
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    return CudaDevice(library)


_device: HostDevice | CudaDevice | None = None


def device() -> HostDevice | CudaDevice | None:
    """The device, opened at first use; None where there is no driver or no GPU."""
    global _device
    if _device is None:
        _device = _open()
    return _device
