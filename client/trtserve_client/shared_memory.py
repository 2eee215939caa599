"""Shared memory of this machine that a client makes and a server reads inputs from and writes outputs to.

For a server on the same machine that allows it (--allow-client-shared-memory). Knows no channel: clients register it.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from trtserve_client.errors import ClientError, InputError
from trtserve_protos import dtypes, tensors
from trtserve_protos.errors import ProtocolError, TensorError

REGION_PARAMETER = "shared_memory_region"
SIZE_PARAMETER = "shared_memory_byte_size"
OFFSET_PARAMETER = "shared_memory_offset"

_FOLDER = "/dev/shm"
_FLAGS = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
ALIGNMENT = 64
"""Where places begin: at a multiple of so many bytes."""


class Region(Protocol):
    """Memory that a server can be told of. `on_host` says whether `view` gives its bytes."""

    @property
    def name(self) -> str:
        """What it is registered as."""
        ...

    @property
    def on_host(self) -> bool:
        """False where this process cannot look into it."""
        ...

    def view(self, offset: int, byte_size: int) -> memoryview:
        """The bytes of a place."""
        ...


class SharedMemory:
    """`byte_size` bytes of POSIX shared memory, made and, with `close`, taken away by this process.

    `key` is its name on this machine, by default one that nobody else has; `name` is what it is registered as, by
    default the same. Places in it are handed out from its beginning. Raises ClientError where it cannot be made.
    """

    on_host = True

    def __init__(self, byte_size: int, *, name: str = "", key: str = "") -> None:
        if byte_size < 1:
            raise ClientError(f"byte_size={byte_size} given, at least 1 wanted")
        self.key = key or f"/trtserve-{os.getpid()}-{os.urandom(4).hex()}"
        self.name = name or self.key
        self.byte_size = byte_size
        path = _path(self.key)
        self._memory = _made(path, byte_size)
        self._unlink = weakref.finalize(self, _unlink, path, os.getpid())
        self._used = 0

    @property
    def free_bytes(self) -> int:
        """How much is left to be handed out."""
        return self.byte_size - self._used

    def tensor(self, shape: Sequence[int], dtype: Any) -> SharedTensor:
        """Room for an array of this shape and numpy type, as input or as output. Raises InputError."""
        datatype = datatype_of(dtype)
        if not datatype.item_size:
            raise InputError("BYTES have no fixed size: put() takes their array, room() makes place for an output")
        shape = tuple(shape)
        room = self.room(tensors.element_count(shape) * datatype.item_size)
        return SharedTensor(self, room.offset, room.byte_size, datatype.name, shape)

    def put(self, array: np.ndarray) -> SharedTensor:
        """A copy of the array, which may hold str or bytes. Raises InputError."""
        try:
            datatype = dtypes.from_numpy(array.dtype)
            raw = memoryview(tensors.raw_from_array(array))
        except ProtocolError as error:
            raise InputError(f"a tensor in shared memory: {error}") from error
        room = self.room(raw.nbytes)
        self._memory[room.offset : room.offset + raw.nbytes] = raw
        return SharedTensor(self, room.offset, raw.nbytes, datatype.name, array.shape)

    def room(self, byte_size: int) -> SharedRoom:
        """A place for an output whose size is not known, of at most `byte_size`. Raises InputError where none is left.

        It begins where any type may, at a multiple of 64 bytes.
        """
        offset = -(-self._used // ALIGNMENT) * ALIGNMENT
        if offset + byte_size > self.byte_size:
            raise InputError(
                f"{byte_size} bytes wanted, {max(0, self.byte_size - offset)} of {self.byte_size} left in shared memory"
                f" {self.name!r}; make it larger, or reset() it once its tensors are not needed"
            )
        self._used = offset + byte_size
        return SharedRoom(self, offset, byte_size)

    def reset(self) -> None:
        """Hands out places from the beginning again; those handed out before will be overwritten."""
        self._used = 0

    def view(self, offset: int, byte_size: int) -> memoryview:
        """The bytes of a place, to be read and written. Raises ClientError after `close`."""
        if self._memory.closed:
            raise ClientError(f"shared memory {self.name!r} is closed")
        return memoryview(self._memory)[offset : offset + byte_size]

    def close(self) -> None:
        """Takes the memory away. Arrays in it stay valid; a server that has it registered keeps it until then too."""
        self._unlink()
        with suppress(BufferError):  # arrays refer to it; it goes with the last of them
            self._memory.close()

    def __enter__(self) -> SharedMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SharedMemory({self.byte_size}, name={self.name!r}, key={self.key!r})"


@dataclass(frozen=True)
class SharedRoom:
    """A place in shared memory, to be given as an output: outputs={"y": room}."""

    memory: Region
    offset: int
    byte_size: int

    def parameters(self) -> dict[str, int | str]:
        """What a request says of it."""
        place = {OFFSET_PARAMETER: self.offset} if self.offset else {}
        return {REGION_PARAMETER: self.memory.name, SIZE_PARAMETER: self.byte_size, **place}

    def read(self, datatype: str, shape: Sequence[int], byte_size: int | None = None) -> np.ndarray:
        """The tensor that lies here: a view of the memory, but for BYTES. Raises ProtocolError.

        Of BYTES `byte_size` says how long they are; others need no more than their type and shape.
        """
        kind = dtypes.from_name(datatype)
        size = tensors.element_count(shape) * kind.item_size if kind.item_size else byte_size or self.byte_size
        if size > self.byte_size:
            raise TensorError(
                f"{size} bytes for datatype {datatype} and shape {list(shape)}, {self.byte_size} are here"
            )
        return tensors.array_from_raw(self.memory.view(self.offset, size), kind, shape)


@dataclass(frozen=True)
class SharedTensor(SharedRoom):
    """A tensor in shared memory, to be given as an input or as an output."""

    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The numpy type; object for BYTES."""
        return dtypes.from_name(self.datatype).numpy

    @property
    def array(self) -> np.ndarray:
        """The tensor as an array over the shared memory, to be filled and read; of BYTES a copy."""
        return self.read(self.datatype, self.shape, self.byte_size)


def datatype_of(dtype: Any) -> dtypes.DataType:
    """The datatype of a numpy type. Raises InputError where the wire has none."""
    try:
        return dtypes.from_numpy(np.dtype(dtype))
    except ProtocolError as error:
        raise InputError(f"a tensor in shared memory: {error}") from error


def _path(key: str) -> str:
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ClientError(f"key={key!r} given, a name such as '/inputs' without another slash wanted")
    return os.path.join(_FOLDER, name)


def _made(path: str, byte_size: int) -> mmap.mmap:
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise ClientError(f"shared memory {path} cannot be made: {error.strerror}") from error
    try:
        # Not ftruncate, which promises memory that may not be there when it is touched.
        os.posix_fallocate(descriptor, 0, byte_size)
        return mmap.mmap(descriptor, byte_size)
    except OSError as error:
        os.unlink(path)
        raise ClientError(f"{byte_size} bytes of shared memory cannot be had: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _unlink(path: str, process: int) -> None:
    """In the process that made it only: a fork that ends must not take it away."""
    if os.getpid() == process:
        with suppress(FileNotFoundError):
            os.unlink(path)
