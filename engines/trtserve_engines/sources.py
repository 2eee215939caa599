"""Tensors that lie outside this process and come in by one copy, straight to where an engine wants them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


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
