"""A part of a file in this process's memory, shared with whoever else maps it, and guarded against their cutting it."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

import numpy as np

from trtserve_server.shared_memory import sigbus_guard
from trtserve_server.shared_memory.sigbus_guard import GuardedRange, libc

_FAILED = ctypes.c_void_p(-1).value


class Mapping:
    """`size` bytes of an open file, from `offset` on. Unmapped when no array refers to it any more.

    Raises OSError where it cannot be mapped or guarded.
    """

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        skipped = offset % mmap.PAGESIZE
        length = -(-(skipped + size) // mmap.PAGESIZE) * mmap.PAGESIZE
        access = mmap.PROT_READ | mmap.PROT_WRITE
        start = libc.mmap(None, length, access, mmap.MAP_SHARED, descriptor, offset - skipped)
        if start == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._address: int = start + skipped
        self._guarded = GuardedRange(start, start + length)
        # What numpy makes an array of, which then refers to this object.
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (self._address, False)}
        # Not at the process's end, when threads may still be at work on it.
        weakref.finalize(self, _unmap, self._guarded).atexit = False
        sigbus_guard.guard(self._guarded)

    def bytes(self) -> np.ndarray:
        """The mapping as uint8, which keeps it."""
        return np.asarray(self)

    def is_shared(self, end: int) -> bool:
        """Whether the first `end` bytes are what others see, and have been since they were mapped."""
        return self._address + end <= self._guarded.broken_from


def _unmap(guarded: GuardedRange) -> None:
    sigbus_guard.release(guarded)
    libc.munmap(guarded.start, guarded.end - guarded.start)
