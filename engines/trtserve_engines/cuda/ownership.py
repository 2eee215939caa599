"""Which GPU each thread has open, counted: the first open makes a context current, the last close ends that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from trtserve_engines.cuda.errors import DeviceOwnershipError

Opened = TypeVar("Opened")


class _OfThread(threading.local, Generic[Opened]):
    index = -1
    opens = 0
    device: Opened | None = None


class DevicesOfThreads(Generic[Opened]):
    """`start(index)` makes a GPU current on the calling thread, `end(device)` undoes it."""

    def __init__(self, start: Callable[[int], Opened], end: Callable[[Opened], None]) -> None:
        self._start = start
        self._end = end
        self._here: _OfThread[Opened] = _OfThread()

    def open(self, index: int) -> Opened:
        """The device that the calling thread has, opened where it has none yet."""
        here = self._here
        if here.device is None:
            here.device = self._start(index)
            here.index = index
        elif here.index != index:
            raise DeviceOwnershipError(
                f"thread {threading.current_thread().name} asked for GPU {index} while it has GPU {here.index} open;"
                " a thread works on one GPU at a time: close the first one, or use another thread"
            )
        here.opens += 1
        return here.device

    def close(self) -> None:
        """Takes back one `open` of the calling thread."""
        here = self._here
        if here.device is None:
            raise DeviceOwnershipError(
                f"thread {threading.current_thread().name} closed a GPU that it has not open;"
                " what a thread opens it must close itself, once"
            )
        here.opens -= 1
        if here.opens == 0:
            device, here.device = here.device, None
            self._end(device)

    def forget(self) -> bool:
        """Takes back every `open` of the calling thread, without an end; whether there were any."""
        here = self._here
        was_open, here.device, here.opens = here.device is not None, None, 0
        return was_open
