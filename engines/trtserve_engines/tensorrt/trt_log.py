"""TensorRT's messages: into Python's logging, and, as the reason for a None or False, to whoever collects them.

TensorRT keeps the first logger that a process gives it, for good, so there is one per process.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
_MAX_LINES = 1000


class LogLines:
    """What TensorRT said during one operation, the oldest first. Bounded: the oldest go when there are too many."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str]] = []

    def add(self, level: int, message: str) -> None:
        """Keeps one message of logging level `level`."""
        self._lines.append((level, message))
        del self._lines[:-_MAX_LINES]

    def at_least(self, level: int) -> list[str]:
        """The messages that are at least as severe as `level`."""
        return [message for severity, message in self._lines if severity >= level]

    def reason(self) -> str:
        """The errors in one line; what to put into an exception when TensorRT gave None or False."""
        errors = self.at_least(logging.ERROR) or self.at_least(logging.WARNING)
        return "; ".join(dict.fromkeys(errors)) or "TensorRT gave no reason"


class TensorRtLog:
    """The process's logger. `native` is what TensorRT's constructors take."""

    def __init__(self, trt: Any) -> None:
        self._level = logging.WARNING
        self._collectors: dict[int, LogLines] = {}
        self._lock = threading.Lock()
        self._levels = {int(severity): LEVELS[name] for name, severity in trt.ILogger.Severity.__members__.items()}
        self.native = _native_logger(trt, self)

    def set_verbosity(self, name: str) -> None:
        """The least severity that is logged: "error", "warning", "info" or "verbose"."""
        self._level = LEVELS[name.upper()]

    @contextmanager
    def collect(self) -> Iterator[LogLines]:
        """Collects what TensorRT says inside the `with`, on this thread and on threads of TensorRT's own."""
        lines = LogLines()
        owner = threading.get_ident()
        with self._lock:
            outer = self._collectors.get(owner)
            self._collectors[owner] = lines
        try:
            yield lines
        finally:
            with self._lock:
                if outer is None:
                    del self._collectors[owner]
                else:
                    self._collectors[owner] = outer

    def receive(self, severity: int, message: str) -> None:
        """One message of TensorRT. It may come from any thread and must never call back into TensorRT."""
        level = self._levels.get(severity, logging.ERROR)
        if level < self._level and level < logging.WARNING:
            return
        for lines in self._listeners():
            lines.add(level, message)
        if level >= self._level:
            log.log(level, "%s", message)

    def _listeners(self) -> list[LogLines]:
        """The thread's own collector; for a thread that has none, which is TensorRT's, all of them."""
        with self._lock:
            own = self._collectors.get(threading.get_ident())
            return [own] if own is not None else list(self._collectors.values())


@functools.cache
def tensorrt_log(trt: Any) -> TensorRtLog:
    """The process's logger for the module `trt`."""
    return TensorRtLog(trt)


def _native_logger(trt: Any, receiver: TensorRtLog) -> Any:
    class NativeLogger(trt.ILogger):  # type: ignore[misc]
        """The ILogger that TensorRT calls."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            receiver.receive(int(severity), msg)

    return NativeLogger()
