"""What can go wrong in a call of the CUDA driver.

    ExecutionError
    ├── CudaError                  a call failed; `call`, `code` and `name` say which and how
    │   ├── OutOfDeviceMemoryError     CUDA_ERROR_OUT_OF_MEMORY; is an OutOfMemoryError too
    │   └── StickyCudaError            the context is lost to this process; is a DeviceLostError too
    ├── DeviceLostError            lives in trtserve_engines.errors
    │   └── EventTimeoutError          what a stream should have done long ago has not happened
    └── DeviceOwnershipError       a thread opened a second GPU beside the first

A sticky error stays: every later call fails with it until the process ends, so nothing can be repaired here.
"""

from __future__ import annotations

from trtserve_engines.errors import DeviceLostError, ExecutionError, OutOfMemoryError

OUT_OF_MEMORY = 2
NO_DEVICE = 100

# CUDA's own documentation of CUresult says of each of these that the process must be ended and started again;
# 999, unknown, is treated alike because nothing good can be assumed of it.
STICKY_CODES = frozenset({46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999})


class CudaError(ExecutionError):
    """A call of the driver failed: `call` with the number `code`, whose name is `name`."""

    def __init__(self, call: str, code: int, name: str, text: str) -> None:
        super().__init__(f"{call} failed with {name} ({code}): {text}")
        self.call = call
        self.code = code
        self.name = name


class OutOfDeviceMemoryError(CudaError, OutOfMemoryError):
    """There is not as much memory left as was asked for."""


class StickyCudaError(CudaError, DeviceLostError):
    """The GPU, or this process's context on it, cannot be used any more; only a new process can."""


class EventTimeoutError(DeviceLostError):
    """An event that should have happened long ago has not."""


class DeviceOwnershipError(ExecutionError):
    """A thread works on one GPU at a time."""


def cuda_error(call: str, code: int, name: str, text: str) -> CudaError:
    """The error of the right class for a result that is not CUDA_SUCCESS."""
    if code == OUT_OF_MEMORY:
        return OutOfDeviceMemoryError(call, code, name, text)
    if code in STICKY_CODES:
        return StickyCudaError(call, code, name, text)
    return CudaError(call, code, name, text)
