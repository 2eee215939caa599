"""libcuda.so.1 itself, for the few things that pycuda does not offer: numbers of errors, UUIDs, one way to pop."""

from __future__ import annotations

import ctypes
import uuid
from functools import cached_property
from typing import NamedTuple

from trtserve_engines.cuda.errors import CudaError, cuda_error

_HIGHEST_CODE = 1000


class ErrorText(NamedTuple):
    """One result of the driver: its number, name and text."""

    code: int
    name: str
    text: str


class DriverLibrary:
    """The library that pycuda has loaded. Raises OSError where there is none."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    @cached_property
    def error_by_text(self) -> dict[str, ErrorText]:
        """Every error that this driver knows, by the text that pycuda's exceptions carry."""
        texts = (self._error(code) for code in range(1, _HIGHEST_CODE))
        return {error.text: error for error in texts if error.text}

    def uuid(self, index: int) -> str:
        """What tells a GPU, or a slice of one, from every other: GPU-xxxxxxxx-xxxx-..., as nvidia-smi prints it."""
        data = (ctypes.c_ubyte * 16)()
        self.check("cuDeviceGetUuid", self._library.cuDeviceGetUuid_v2(data, index))
        return text_from_uuid(bytes(data))

    def pop_if_current(self, context: int) -> None:
        """Takes the context off the calling thread's stack where it lies on top."""
        current = ctypes.c_void_p()
        self.check("cuCtxGetCurrent", self._library.cuCtxGetCurrent(ctypes.byref(current)))
        if current.value == context:
            self.check("cuCtxPopCurrent", self._library.cuCtxPopCurrent_v2(ctypes.byref(current)))

    def check(self, call: str, code: int) -> None:
        """Raises CudaError for a result that is not CUDA_SUCCESS."""
        if code != 0:
            raise cuda_error(call, *self._error(code))

    def error_from_text(self, message: str) -> CudaError:
        """The error behind pycuda's "CALL failed: TEXT"."""
        call, _, text = message.partition(" failed: ")
        known = self.error_by_text.get(text.partition(" - ")[0])
        return cuda_error(call, *(known or ErrorText(999, "CUDA_ERROR_UNKNOWN", message)))

    def _error(self, code: int) -> ErrorText:
        name, text = ctypes.c_char_p(), ctypes.c_char_p()
        self._library.cuGetErrorName(code, ctypes.byref(name))
        self._library.cuGetErrorString(code, ctypes.byref(text))
        return ErrorText(code, (name.value or b"unknown").decode(), (text.value or b"").decode())


def text_from_uuid(data: bytes) -> str:
    """16 bytes as nvidia-smi prints them."""
    return f"GPU-{uuid.UUID(bytes=data)}"
