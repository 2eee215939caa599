"""Reused memory that batches are gathered into and outputs are written to: one growing buffer per tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trtserve_engines.engine import Arrays
from trtserve_engines.sources import TensorSource

ALIGNMENT = 64
"""In bytes: a cache line, and the widest vector that runtimes load."""


_ARRAYS = np.ndarray, np.generic


class StagingBuffer:
    """One tensor's memory. Every array that it hands out starts at the same address, until the buffer has to grow."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._memory = _aligned(0)

    def array(self, shape: Sequence[int]) -> tuple[np.ndarray, bool]:
        """An array of `shape` over the buffer, and whether the buffer moved for it: older arrays are then stale."""
        size = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        moved = size > len(self._memory)
        if moved:
            self._memory = _aligned(size)
        return self._memory[:size].view(self._dtype).reshape(shape), moved


def gather(target: np.ndarray, parts: Sequence[Arrays], name: str) -> None:
    """Copies the rows of input `name` of all parts into `target`, in order; the only copy of an input byte."""
    if len(parts) == 1:
        _copy(parts[0][name], target)
        return
    row = 0
    for part in parts:
        array = part[name]
        _copy(array, target[row : row + len(array)])
        row += len(array)


def joined(parts: Sequence[Arrays], name: str) -> np.ndarray:
    """Input `name` of all parts as one array, for models whose inputs are not staged; a lone array is not copied."""
    if len(parts) == 1:
        return np.asarray(parts[0][name])
    return np.concatenate([np.asarray(part[name]) for part in parts])


def gathered_shape(parts: Sequence[Arrays], name: str) -> tuple[int, ...]:
    """The shape of input `name` with the rows of all parts together."""
    shape = parts[0][name].shape
    if len(parts) == 1:
        return shape
    return (sum(len(part[name]) for part in parts), *shape[1:])


def _copy(source: np.ndarray | TensorSource, target: np.ndarray) -> None:
    if isinstance(source, _ARRAYS):
        np.copyto(target, source)
    else:
        source.copy_to(target)


def _aligned(size: int) -> np.ndarray:
    memory = np.empty(size + ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % ALIGNMENT
    return memory[offset : offset + size]
