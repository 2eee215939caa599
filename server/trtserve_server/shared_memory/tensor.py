"""The tensors of one request in shared memory: inputs read and outputs written where they lie, or copied once."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtserve_engines.sources import Located
from trtserve_server.errors import InvalidRequest
from trtserve_server.shared_memory.regions import Window


class SharedTensor:
    """A TensorSource of one request over a window that has the tensor's size.

    `problem` says why it could not be read; the one who asked for the tensor is to be told.
    """

    __slots__ = ("_error", "_viewed", "dtype", "shape", "window")

    def __init__(self, window: Window, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self.window = window
        self.dtype = dtype
        self.shape = shape
        self._error: InvalidRequest | None = None
        self._viewed = False

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
            self._error = error
            target[...] = np.zeros((), self.dtype)

    def in_place(self) -> Located | None:
        """See TensorSource."""
        there = self.window.array(self.dtype, self.shape)
        self._viewed = self._viewed or there is not None
        return there

    def problem(self) -> InvalidRequest | None:
        """Why what was read, or is being read, may not be what lies there; None where it is."""
        return self._error or (_cut_off(self.window) if self._viewed else None)


class SharedPlace:
    """A TensorPlace of one request. `array` gives memory of the window's beginning, once."""

    __slots__ = ("_given", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self._given: Located | None = None

    def array(self, dtype: np.dtype, shape: tuple[int, ...]) -> Located | None:
        """See TensorPlace."""
        self._given = self.window.array(dtype, shape)
        return self._given

    def problem(self) -> InvalidRequest | None:
        """Why what was written may not be there; None where it is, or nothing was."""
        return _cut_off(self.window) if self._given is not None else None


def _cut_off(window: Window) -> InvalidRequest | None:
    try:
        window.check_view()
    except InvalidRequest as error:
        return error
    return None
