"""A tensor in shared memory on its way into an engine: read once, straight to where the engine wants it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtserve_server.errors import InvalidRequest
from trtserve_server.shared_memory.regions import Window


class SharedTensor:
    """A TensorSource of one request over a window that has the tensor's size.

    `error` says why it could not be read; the one who asked for the tensor is to be told.
    """

    __slots__ = ("dtype", "error", "shape", "window")

    def __init__(self, window: Window, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self.window = window
        self.dtype = dtype
        self.shape = shape
        self.error: InvalidRequest | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.empty(self.shape, self.dtype)
        self.copy_to(array)
        return array if dtype is None else array.astype(dtype)

    def reshape(self, shape: tuple[int, ...]) -> SharedTensor:
        """The tensor with another shape of as many elements."""
        return SharedTensor(self.window, self.dtype, shape)

    def copy_to(self, target: np.ndarray) -> None:
        """See TensorSource."""
        try:
            self.window.read(target.reshape(-1).view(np.uint8).data)
        except InvalidRequest as error:
            self.error = error
            target[...] = np.zeros((), self.dtype)
