"""Room for an output whose size only the run tells: TensorRT asks for it in the middle of the enqueue."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtserve_engines.cuda.api import Device, DeviceBuffer, PinnedBuffer, Stream
from trtserve_engines.tensorrt.engine_io import EngineTensor
from trtserve_engines.tensorrt.profile_shapes import Shape


class OutputRoom:
    """Device and pinned memory of one output of one slot; both grow and never shrink.

    `native` is what TensorRT calls. Memory that has become too small is kept until `settle`, because freeing waits for
    the device, which must not happen inside an enqueue.
    """

    def __init__(self, trt: Any, device: Device, tensor: EngineTensor) -> None:
        self._device = device
        self._tensor = tensor
        self._memory: DeviceBuffer | None = None
        self._pinned: PinnedBuffer | None = None
        self._outgrown: list[DeviceBuffer] = []
        self._shape: Shape = ()
        self.error: Exception | None = None
        self.native = _native_allocator(trt, self)

    def make_room(self, size: int) -> int:
        """The address of at least `size` bytes; 0 where there are none, and then `error` says why."""
        if self._memory is None or self._memory.size < size:
            try:
                grown = self._device.allocate(_grown(size))
            except Exception as error:  # nothing can be raised through TensorRT
                self.error = error
                return 0
            if self._memory is not None:
                self._outgrown.append(self._memory)
            self._memory = grown
        return self._memory.address

    def note_shape(self, shape: Shape) -> None:
        """What the run gave."""
        self._shape = shape

    def download(self, stream: Stream) -> None:
        """Enqueues the copy of the output to the host."""
        size = self._tensor.nbytes(self._shape)
        if self._pinned is None or len(self._pinned.array) < size:
            grown = self._device.pinned(_grown(size))
            if self._pinned is not None:
                self._pinned.free()
            self._pinned = grown
        if size:
            assert self._memory is not None
            stream.copy_to_host(self._pinned, self._memory.address, size)

    def array(self) -> np.ndarray:
        """The output, in memory that the next run writes to again."""
        assert self._pinned is not None
        size = self._tensor.nbytes(self._shape)
        return self._pinned.array[:size].view(self._tensor.spec.dtype).reshape(self._shape)

    def settle(self) -> None:
        """Frees what has been outgrown, and raises what went wrong in `make_room`; the work of the slot is done."""
        while self._outgrown:
            self._outgrown.pop().free()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def free(self) -> None:
        """Gives all of it back."""
        self.error = None
        self.settle()
        for buffer in (self._memory, self._pinned):
            if buffer is not None:
                buffer.free()


def _grown(size: int) -> int:
    """The next power of two, so that an output that grows little by little is seldom moved."""
    return 1 << max(size - 1, 255).bit_length()


def _native_allocator(trt: Any, room: OutputRoom) -> Any:
    class NativeAllocator(trt.IOutputAllocator):  # type: ignore[misc]
        """The IOutputAllocator that TensorRT calls, on the thread that enqueues."""

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return room.make_room(size)

        def notify_shape(self, name: str, shape: Any) -> None:
            room.note_shape(tuple(shape))

    return NativeAllocator()
