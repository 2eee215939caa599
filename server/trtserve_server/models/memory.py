"""Gives freed memory back to the operating system: the C library keeps what a model leaves for its own later use."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8


def use_one_heap() -> None:
    """Has all threads of the process share one heap, where the C library is glibc. To be called before any starts.

    By default each thread gets a heap of its own, whose free pages `give_back_memory` returns, but not its end: after
    four models of 25 MB were unloaded, 10 to 35 MB stayed that do not stay with one heap. What threads wait for one
    another at it was too little to be measured: large tensors have mappings of their own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Lets the C library trim its heaps, where it is glibc. From any thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
