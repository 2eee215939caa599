"""Tensors that lie in memory of another process: read and written where they lie, or copied once to or from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np


class Located(NamedTuple):
    """An array and the address of its first byte, which takes as long to ask for as a small copy."""

    array: np.ndarray
    address: int


def located(array: np.ndarray) -> Located:
    """The array with its address."""
    return Located(array, int(array.__array_interface__["data"][0]))


class TensorSource(Protocol):
    """Stands in for an input's array: same type, shape and length, without memory of its own."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def __len__(self) -> int:
        """The first dimension."""
        ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The tensor in memory of this process, for whoever has no place for it."""
        ...

    def copy_to(self, target: np.ndarray) -> None:
        """Fills `target`, which has the tensor's type and shape and is contiguous. Never fails.

        A tensor that cannot be read becomes zeros: the rows beside it must not notice, and the one who made the source
        asks it whether it could be read.
        """
        ...

    def in_place(self) -> Located | None:
        """The tensor where it lies, for reading; None where it can only be copied.

        Its values may change at any time, also between two looks. What cannot be read is zeros, as with `copy_to`.
        """
        ...


class TensorPlace(Protocol):
    """Where an output may be written."""

    def array(self, dtype: np.dtype, shape: tuple[int, ...]) -> Located | None:
        """Memory there for an output of this type and shape; None where it has to be copied there afterwards."""
        ...


class PlacedArrays(dict[str, Any]):
    """The inputs of a request, arrays and sources, and `places` for outputs of an engine that runs it alone."""

    __slots__ = ("places",)

    places: Mapping[str, TensorPlace]
