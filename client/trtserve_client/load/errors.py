"""Why a measurement did not happen. Each carries the exit code of trtserve-load.

    LoadError(Exception)
    ├── UsageError          an option, a file or an input that does not fit: 2
    ├── RefusedError        the server is there and says no: 1
    ├── UnreachableError    nothing answers at the URL: 3
    ├── WorkerError         a worker process ended before its work did: 5
    └── OutputError         a result could not be written: 5

A condition of --fail-if that holds is no error; it ends with exit code 4. An interrupt ends with 130.
"""

from __future__ import annotations

from typing import ClassVar

DONE, CONDITION_HOLDS, INTERRUPTED = 0, 4, 130


class LoadError(Exception):
    """Base of the errors of trtserve-load. The message says what was given, what was wanted and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(LoadError):
    """An option, a file or an input that does not fit."""

    exit_code = 2


class RefusedError(LoadError):
    """The server is there and says no."""


class UnreachableError(LoadError):
    """Nothing answers at the URL."""

    exit_code = 3


class WorkerError(LoadError):
    """A worker process ended before its work did."""

    exit_code = 5


class OutputError(LoadError):
    """A result could not be written."""

    exit_code = 5
