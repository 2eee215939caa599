"""Dims, host memory, and the classes that users derive from: logger, progress monitor, output allocator."""

from __future__ import annotations

import ctypes
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ._real import DataType, Native, Severity, as_in_this_generation


class Dims(Native):
    """A shape. No tuple, but compares with tuples and lists and can be made one."""

    MAX_DIMS = 8

    def __init__(self, shape: Sequence[int] = ()) -> None:
        if len(shape) > self.MAX_DIMS:
            raise ValueError(f"Input length {len(shape)}. Max expected length is {self.MAX_DIMS}")
        self._sizes = tuple(int(size) for size in shape)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        return self._sizes[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._sizes)

    def __eq__(self, other: object) -> bool:
        return tuple(other) == self._sizes if isinstance(other, (tuple, list, Dims)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._sizes)

    def __repr__(self) -> str:
        return str(self._sizes)


class IHostMemory(ctypes.Structure):
    """Memory that the library has made: a buffer without a length. Made by `host_memory`."""

    @property
    def nbytes(self) -> int:
        return ctypes.sizeof(self)

    @property
    def dtype(self) -> Any:
        return DataType.INT8


def host_memory(data: bytes) -> IHostMemory:
    """`data` as the library hands it out."""
    cls = type("IHostMemory", (IHostMemory,), {"_fields_": [("_bytes", ctypes.c_ubyte * len(data))]})
    return cls.from_buffer_copy(data)


class _Derivable(Native):
    """Must be initialised by the classes derived from it, as pybind11 demands."""

    def __init__(self) -> None:
        self._is_initialised = True


def initialised(value: Any, cls: type) -> Any:
    """`value` where it is an initialised instance of `cls`; raises TypeError as the bindings do."""
    if not isinstance(value, cls):
        raise TypeError(f"incompatible function arguments: {cls.__name__} wanted, {type(value).__name__} given")
    if isinstance(value, _Derivable) and not getattr(value, "_is_initialised", False):
        raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
    return value


class ILogger(_Derivable):
    """Receives every message, whatever its severity."""

    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = (
        Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.VERBOSE,
    )  # fmt: skip

    def log(self, severity: Any, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


class Logger(ILogger):
    """Prints what is at least as severe as `min_severity`."""

    def __init__(self, min_severity: Any = Severity.WARNING) -> None:
        super().__init__()
        self._min_severity = min_severity

    @property
    def min_severity(self) -> Any:
        return self._min_severity

    @min_severity.setter
    def min_severity(self, value: Any) -> None:
        self._min_severity = value

    def log(self, severity: Any, msg: str) -> None:
        if severity <= self._min_severity:
            print(f"[TRT] [{severity.name[0]}] {msg}")


class IProgressMonitor(_Derivable):
    """Hears of the phases of a build."""

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::phase_start"')

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::step_complete"')

    def phase_finish(self, phase_name: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::phase_finish"')


class IOutputAllocator(_Derivable):
    """Makes room for outputs whose size is known only during the run.

    The real base class shows no methods; a derived one defines reallocate_output_async or reallocate_output, and
    notify_shape.
    """


def call_back(default: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the user's function as the library does: an exception is printed and swallowed, `default` results."""
    try:
        return function(*arguments)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return default


_global_logger: ILogger | None = None


def register_logger(logger: Any) -> ILogger:
    """The process's one logger: the first that was ever given."""
    global _global_logger
    given = initialised(logger, ILogger)
    if _global_logger is None:
        _global_logger = given
    elif given is not _global_logger:
        log(
            Severity.WARNING,
            "The logger passed into createInferRuntime differs from one already registered for an existing builder,"
            " runtime, or refitter. So the current new logger is ignored, and TensorRT will use the existing one",
        )
    return given


def log(severity: Any, message: str) -> None:
    """A message to the process's logger."""
    if _global_logger is not None:
        call_back(None, _global_logger.log, severity, message)


def log_error(where: str, message: str, code: str = "Error Code 3: API Usage Error") -> None:
    """An error in the library's form."""
    log(Severity.ERROR, f"{where}: {code} ({message})")


for _cls in (Dims, IHostMemory, Logger, IProgressMonitor):
    as_in_this_generation(_cls)
