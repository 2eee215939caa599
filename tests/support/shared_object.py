"""A POSIX shared memory object made by hand, as a client of any language would have it."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

_numbers = itertools.count()


class SharedObject:
    """`size` bytes under a key of its own, mapped; gone with `close`."""

    def __init__(self, size: int, prefix: str = "trtserve-test") -> None:
        self.size = size
        self.key = f"/{prefix}-{os.getpid()}-{next(_numbers)}"
        self.path = f"/dev/shm{self.key}"
        descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.ftruncate(descriptor, size)
        self.memory = mmap.mmap(descriptor, size)
        os.close(descriptor)

    def put(self, array: np.ndarray, offset: int = 0) -> None:
        """Writes the array's bytes."""
        self.memory[offset : offset + array.nbytes] = array.tobytes()

    def get(self, dtype: type, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
        """An array of the bytes at `offset`."""
        count = int(np.prod(shape))
        return np.frombuffer(self.memory[offset : offset + count * np.dtype(dtype).itemsize], dtype).reshape(shape)

    def truncate(self, size: int) -> None:
        """Cuts the object off, or makes it longer; what is mapped behind its end must not be touched any more."""
        os.truncate(self.path, size)

    def close(self) -> None:
        """Takes the object away."""
        self.memory.close()
        if os.path.exists(self.path):
            os.unlink(self.path)


@contextmanager
def shared_objects() -> Iterator[Callable[[int], SharedObject]]:
    """Makes objects of the sizes that it is called with; they are gone at the end."""
    with ExitStack() as made:

        def of_size(size: int) -> SharedObject:
            shared = SharedObject(size)
            made.callback(shared.close)
            return shared

        yield of_size
