"""A thread that has a GPU open, for what must be made and freed on one thread but is used by others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from trtserve_engines.cuda.api import Device, Driver
from trtserve_engines.cuda.tracebacks import clear_frames

Result = TypeVar("Result")
_Job = tuple[Callable[[Device], Any], "Future[Any]"]


class DeviceThread:
    """Runs what it is given, one after another, with the GPU current. Raises CudaError where that cannot be opened."""

    def __init__(self, driver: Driver, index: int, name: str) -> None:
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        opened: Future[None] = Future()
        # A daemon: a forced exit does not wait for a driver that hangs.
        self._thread = threading.Thread(target=self._main, args=(driver, index, opened), name=name, daemon=True)
        self._thread.start()
        opened.result()

    def call(self, function: Callable[[Device], Result]) -> Result:
        """What `function(device)` gives or raises, run on the thread. From any other thread.

        What it made and did not give dies on the thread, even where it raises.
        """
        future: Future[Result] = Future()
        self._inbox.put((function, future))
        return future.result()

    def post(self, function: Callable[[Device], object]) -> None:
        """Has `function(device)` run on the thread at some time before `close` ends. From any thread, this one too."""
        self._inbox.put((function, Future()))

    def close(self) -> None:
        """Closes the GPU and ends the thread. Called once."""
        self._inbox.put(None)
        self._thread.join()

    def _main(self, driver: Driver, index: int, opened: Future[None]) -> None:
        try:
            device = driver.open(index)
        except Exception as error:
            opened.set_exception(error)
            return
        opened.set_result(None)
        while (job := self._inbox.get()) is not None:
            _do(job, device)
            del job  # the wait for the next one must not keep what this one holds
        device.close()


def _do(job: _Job, device: Device) -> None:
    function, future = job
    try:
        future.set_result(function(device))
    except BaseException as error:
        clear_frames(error)
        future.set_exception(error)
