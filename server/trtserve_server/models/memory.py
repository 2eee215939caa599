"""Gives freed memory back to the operating system: the C library keeps what a model leaves for its own later use."""

from __future__ import annotations

import ctypes


def give_back_memory() -> None:
    """Lets the C library trim its heaps, where it can (glibc). From any thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
