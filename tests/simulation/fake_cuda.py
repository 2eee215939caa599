"""The stand-in libcuda as tests see it: what lives, what was called, and what shall fail. See libcuda/fake.h."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

KINDS = ("device", "device_bytes", "pinned", "stream", "event", "context", "pushed", "graph", "graph_exec", "ipc")

Kernel = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class FakeCuda:
    """The switches and counters of the stand-in in this process. Fails to load where only a real driver is found."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        for name in ("fakeCudaLive", "fakeCudaCalls", "fakeCudaCopied"):
            getattr(self._library, name).restype = ctypes.c_long
            getattr(self._library, name).argtypes = [ctypes.c_char_p]
        self._library.fakeCudaFail.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_long]
        self._library.fakeCudaDelay.argtypes = [ctypes.c_long]
        self._library.fakeCudaLaunch.argtypes = [ctypes.c_void_p, Kernel, ctypes.c_void_p]

    def live(self) -> dict[str, int]:
        """How many of each kind are alive."""
        return {kind: self._library.fakeCudaLive(kind.encode()) for kind in KINDS}

    def calls(self, function: str) -> int:
        """How often a function was called since the last reset, by its name without version."""
        return int(self._library.fakeCudaCalls(function.encode()))

    def copied(self, direction: str) -> int:
        """Bytes copied since the last reset: "HtoD", "DtoH" or "DtoD"."""
        return int(self._library.fakeCudaCopied(direction.encode()))

    def has_current_context(self) -> bool:
        """Whether a GPU is current on the calling thread."""
        context = ctypes.c_void_p()
        self._library.cuCtxGetCurrent(ctypes.byref(context))
        return bool(context.value)

    def fail(self, function: str, code: int, nth: int = 1, times: int = 1) -> None:
        """Lets the nth call from now of a function, and those behind it, fail; "kernel" is the nth kernel to run."""
        self._library.fakeCudaFail(function.encode(), nth, code, times)

    def delay(self, microseconds: int) -> None:
        """Makes each piece of work on a stream so much longer."""
        self._library.fakeCudaDelay(microseconds)

    @contextmanager
    def held(self) -> Iterator[None]:
        """While inside, streams take work and do not run it."""
        self._library.fakeCudaHold(1)
        try:
            yield
        finally:
            self._library.fakeCudaHold(0)

    def launch(self, stream: int, kernel: ctypes._FuncPointer) -> None:
        """Enqueues a `Kernel`, which the caller keeps alive."""
        assert self._library.fakeCudaLaunch(stream, kernel, None) == 0

    def reset(self) -> None:
        """Ends failures, sticky errors, delays and holds; sets the counters of calls and bytes to 0."""
        self._library.fakeCudaReset()
