"""Memory of a GPU that a client holds and a server on the same machine reads inputs from and writes outputs to.

Calls no CUDA: its owner makes it, with any package, and says by which handle other processes open it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trtserve_client.errors import ClientError, InputError
from trtserve_client.shared_memory import SharedRoom, SharedTensor, datatype_of
from trtserve_protos import tensors


@dataclass(frozen=True)
class CudaSharedMemory:
    """`byte_size` bytes of GPU `device_id`, known to other processes by `raw_handle`: a cudaIpcMemHandle_t as bytes.

    `name` is what it is registered as. Whoever made the memory fills and reads it: what lies there is in no Result.
    """

    on_host: ClassVar[bool] = False

    name: str
    raw_handle: bytes = field(repr=False)
    byte_size: int
    device_id: int = 0

    def tensor(self, shape: Sequence[int], dtype: Any, *, offset: int = 0) -> SharedTensor:
        """An array of this shape and numpy type at `offset`, as input or as output. Raises InputError."""
        datatype = datatype_of(dtype)
        if not datatype.item_size:
            raise InputError("BYTES have no fixed size: in memory of a GPU they can be an output only, in a room()")
        shape = tuple(shape)
        room = self.room(tensors.element_count(shape) * datatype.item_size, offset=offset)
        return SharedTensor(self, room.offset, room.byte_size, datatype.name, shape)

    def room(self, byte_size: int, *, offset: int = 0) -> SharedRoom:
        """The place for an output of at most `byte_size` bytes at `offset`. Raises InputError."""
        if offset < 0 or byte_size < 0 or offset + byte_size > self.byte_size:
            raise InputError(
                f"{byte_size} bytes at {offset} wanted, memory {self.name!r} of the GPU has {self.byte_size}"
            )
        return SharedRoom(self, offset, byte_size)

    def view(self, offset: int, byte_size: int) -> memoryview:
        """Raises ClientError: the memory lies on a GPU."""
        raise ClientError(f"memory {self.name!r} lies on GPU {self.device_id}; read it with what it was made with")
