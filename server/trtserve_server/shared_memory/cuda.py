"""Memory of a GPU as a region: opened by the handle that its process gave away, copied to and from the host.

Each GPU has a thread of its own here, as the port to CUDA wants it: what a region needs is done there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable

import numpy as np

from trtserve_engines.cuda.api import Device, DeviceBuffer, Driver
from trtserve_engines.cuda.device_thread import DeviceThread
from trtserve_engines.cuda.errors import CudaError
from trtserve_engines.errors import DeviceLostError
from trtserve_server.errors import InvalidRequest

HANDLE_BYTES = 64
"""What CUDA says of memory to other processes."""


class CudaRegion:
    """The first `byte_size` bytes of a piece of memory of GPU `device_id`. See Region."""

    def __init__(self, name: str, device_id: int, byte_size: int, thread: DeviceThread, buffer: DeviceBuffer) -> None:
        self.name = name
        self.device_id = device_id
        self.byte_size = byte_size
        self._thread = thread
        self._address = buffer.address
        # Not at the process's end, which gives everything back by itself.
        weakref.finalize(self, thread.post, lambda device: buffer.free()).atexit = False

    def read(self, offset: int, target: memoryview) -> None:
        """See Region."""
        if target.nbytes:
            array, address = np.frombuffer(target, np.uint8), self._address + offset
            self._call("read", lambda device: device.read(array, address))

    def write(self, offset: int, data: memoryview) -> None:
        """See Region."""
        if data.nbytes:
            array, address = np.frombuffer(data, np.uint8), self._address + offset
            self._call("written to", lambda device: device.write(address, array))

    def view(self, offset: int, size: int) -> np.ndarray | None:
        """See Region: the host cannot address it."""
        return None

    def is_there(self, end: int) -> bool:
        """See Region."""
        return False

    def holds(self, array: np.ndarray) -> bool:
        """See Region."""
        return False

    def check_view(self, end: int) -> None:
        """See Region: there are no views."""

    def position(self, offset: int) -> tuple[Hashable, int]:
        """See Region."""
        return self.device_id, self._address + offset

    def _call(self, what: str, copy: Callable[[Device], None]) -> None:
        try:
            self._thread.call(copy)
        except DeviceLostError:
            raise  # not this request's fault, and not its alone
        except CudaError as error:
            raise InvalidRequest(f"CUDA shared memory region {self.name!r} cannot be {what}: {error}") from error


class CudaMemory:
    """Opens regions through `driver`, with a thread for each GPU that has one. From any thread, blocking."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._threads: dict[int, DeviceThread] = {}

    def open(self, name: str, raw_handle: bytes, device_id: int, byte_size: int) -> CudaRegion:
        """The region behind a handle. Raises InvalidRequest for what is no such memory or is smaller than this."""
        self._check(raw_handle, device_id, byte_size)
        try:
            thread = self._thread(device_id)
            buffer = thread.call(lambda device: _opened(device, raw_handle, byte_size))
        except DeviceLostError:
            raise
        except CudaError as error:
            raise InvalidRequest(
                f"{byte_size} bytes of CUDA shared memory region {name!r} cannot be opened on GPU {device_id}: {error};"
                " the handle must be that of as much memory of another process, which still holds it"
            ) from error
        return CudaRegion(name, device_id, byte_size, thread, buffer)

    def close(self) -> None:
        """Ends the threads, which give back what regions that are gone have held."""
        for thread in self._threads.values():
            thread.close()
        self._threads.clear()

    def _check(self, raw_handle: bytes, device_id: int, byte_size: int) -> None:
        if len(raw_handle) != HANDLE_BYTES:
            raise InvalidRequest(
                f"raw_handle has {len(raw_handle)} bytes; wanted is a CUDA IPC handle of {HANDLE_BYTES}"
            )
        if not 0 < byte_size < 2**62:
            raise InvalidRequest(f"byte_size = {byte_size}; wanted is the size of the memory, 1 or more")
        known = [gpu.index for gpu in self._driver.gpus()]
        if device_id not in known:
            raise InvalidRequest(f"device_id = {device_id}; the GPUs of this server are {known}")

    def _thread(self, device_id: int) -> DeviceThread:
        thread = self._threads.get(device_id)
        if thread is None:
            thread = self._threads[device_id] = DeviceThread(self._driver, device_id, f"shared-memory-gpu-{device_id}")
        return thread


def _opened(device: Device, raw_handle: bytes, byte_size: int) -> DeviceBuffer:
    buffer = device.open_ipc(raw_handle)
    try:
        # CUDA does not say how long the memory is, but refuses to read behind its end.
        device.read(np.empty(1, np.uint8), buffer.address + byte_size - 1)
    except CudaError:
        buffer.free()
        raise
    return buffer
