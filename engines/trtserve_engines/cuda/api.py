"""The port to CUDA: the few calls that trtserve makes, as protocols. Every adapter passes the same suite of tests.

Whatever a Device makes is made, used and freed on the thread that opened the Device, before the Device is closed.
Sizes are bytes; device addresses are plain ints, multiples of 256. Every call raises CudaError where the driver fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from trtserve_engines.device import GpuIdentity

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: without it a stream waits for the default stream, and that one for all others."""


@dataclass(frozen=True)
class GpuInfo:
    """One GPU of this machine. `index` counts as the driver does; `pci_bus_id` and `uuid` tell equal ones apart."""

    index: int
    identity: GpuIdentity
    pci_bus_id: str
    uuid: str


class Memory(NamedTuple):
    """Bytes of device memory that are free, and that there are."""

    free: int
    total: int


class PinnedBuffer(Protocol):
    """Host memory that a GPU reads and writes by itself. `array` is all of it, as bytes."""

    @property
    def address(self) -> int:
        """Where it starts: a multiple of 256."""
        ...

    @property
    def array(self) -> np.ndarray:
        """One dimension of uint8. Not to be touched once the buffer is freed."""
        ...

    def free(self) -> None:
        """Gives the memory back. Called once."""
        ...


class DeviceBuffer(Protocol):
    """Memory of the GPU."""

    @property
    def address(self) -> int:
        """Where it starts."""
        ...

    @property
    def size(self) -> int:
        """How long it is; 0 for one that was opened by a handle, which does not say."""
        ...

    def ipc_handle(self) -> bytes:
        """64 bytes by which another process can open this memory; see Device.open_ipc."""
        ...

    def free(self) -> None:
        """Gives the memory back, or ends its use where it is another process's. Called once."""
        ...


class Event(Protocol):
    """A mark in a stream. A fresh one counts as having happened."""

    @property
    def handle(self) -> int | None:
        """CUevent, for libraries that take one; None where the adapter cannot tell it."""
        ...

    def record(self, stream: Stream) -> None:
        """Marks the place behind all work that the stream has so far."""
        ...

    def query(self) -> bool:
        """Whether everything before the mark is done."""
        ...

    def synchronize(self) -> None:
        """Waits until it is, without using the processor; without a limit, see waiting.py for one."""
        ...

    def milliseconds_since(self, earlier: Event) -> float:
        """The time between two recorded events that were made with `timing`."""
        ...

    def free(self) -> None:
        """Gives the event back. Called once."""
        ...


class Graph(Protocol):
    """Captured work that is launched as a whole."""

    def launch(self, stream: Stream) -> None:
        """Enqueues all of it; only once at a time, because it works on fixed memory."""
        ...

    def free(self) -> None:
        """Gives the graph back. Called once."""
        ...


class Stream(Protocol):
    """Work that is done in order, beside the other streams'."""

    @property
    def handle(self) -> int:
        """CUstream, for libraries that take one."""
        ...

    def copy_to_device(self, target: int, source: PinnedBuffer, size: int, offset: int = 0) -> None:
        """Enqueues a copy of `size` bytes from `offset` of the buffer, which must stay as it is until it is done."""
        ...

    def copy_to_host(self, target: PinnedBuffer, source: int, size: int, offset: int = 0) -> None:
        """Enqueues a copy of `size` bytes to `offset` of the buffer."""
        ...

    def copy_on_device(self, target: int, source: int, size: int) -> None:
        """Enqueues a copy from device memory to device memory."""
        ...

    def wait_for(self, event: Event) -> None:
        """Lets later work of this stream start after the event; does not wait here."""
        ...

    def synchronize(self) -> None:
        """Waits until all work is done."""
        ...

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """What `enqueue` puts on this stream, as a graph instead; nothing of it is run.

        Only where Driver.has_graphs. Raises what `enqueue` raises, or CudaError where the work cannot be captured;
        the stream is then as before.
        """
        ...

    def free(self) -> None:
        """Gives the stream back; its work must be done. Called once."""
        ...


class Device(Protocol):
    """A GPU's primary context, current on the thread that opened it until it is closed there."""

    @property
    def index(self) -> int:
        """The GPU's number, as the driver counts."""
        ...

    def memory(self) -> Memory:
        """How much memory is free now, of all processes."""
        ...

    def stream(self) -> Stream:
        """A new stream, of the kind that does not wait for the default stream."""
        ...

    def event(self, *, timing: bool = False) -> Event:
        """A new event whose `synchronize` sleeps. With `timing` it can tell times, and costs more."""
        ...

    def pinned(self, size: int) -> PinnedBuffer:
        """New host memory, usable with every GPU. It holds whatever was there before."""
        ...

    def allocate(self, size: int) -> DeviceBuffer:
        """New device memory. It holds whatever was there before."""
        ...

    def open_ipc(self, handle: bytes) -> DeviceBuffer:
        """Memory of another process, by the handle that it gave away."""
        ...

    def write(self, target: int, source: np.ndarray) -> None:
        """Copies a contiguous array to the device and waits: for memory that is not pinned."""
        ...

    def read(self, target: np.ndarray, source: int) -> None:
        """Fills a contiguous array from the device and waits: for memory that is not pinned."""
        ...

    def close(self) -> None:
        """Ends the use of the GPU by the one who opened it. Called once per open, on the same thread."""
        ...

    def abandon(self) -> None:
        """Instead of `close` where the device is lost: no call that could wait for it.

        What was made of the device must not be freed after this; it goes when the process does.
        """
        ...


class Driver(Protocol):
    """A Python package that calls the CUDA driver. One per process; shared by all threads."""

    @property
    def name(self) -> str:
        """Which package it is: "pycuda" or "cuda-bindings"."""
        ...

    @property
    def has_graphs(self) -> bool:
        """Whether Stream.capture works."""
        ...

    def gpus(self) -> tuple[GpuInfo, ...]:
        """All GPUs that this process may use."""
        ...

    def open(self, index: int) -> Device:
        """Makes the GPU current on the calling thread. Raises DeviceOwnershipError where another one is.

        A thread may open the same GPU several times; it stays current until each is closed.
        """
        ...
