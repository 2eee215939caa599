"""From a wish to a driver: which of the two packages calls CUDA. The rule is one function; the answer is kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trtserve_engines.cuda.errors import NO_DEVICE, CudaError
from trtserve_engines.errors import BackendUnavailableError

if TYPE_CHECKING:  # who only reads CUDA_DRIVERS needs no numpy
    from trtserve_engines.cuda.api import Driver

CUDA_DRIVERS = ("auto", "pycuda", "cuda-bindings")
PREFERRED = ("cuda-bindings", "pycuda")
"""In order: cuda-bindings comes first because it has graphs."""

_INSTALL = {"cuda-bindings": "pip install 'trtserve[tensorrt]'", "pycuda": "pip install 'trtserve[pycuda]'"}

log = logging.getLogger(__name__)

_lock = threading.Lock()
_drivers: dict[str, Driver] = {}


def choose_driver(wish: str, problems: Mapping[str, str]) -> str:
    """The package to use. `problems` says of each in PREFERRED why it cannot be used, "" where it can.

    Raises BackendUnavailableError where what was asked for by name, or every one, has a problem.
    """
    candidates = PREFERRED if wish == "auto" else (wish,)
    for name in candidates:
        if not problems[name]:
            return name
    reasons = "; ".join(f"{name}: {problems[name]}" for name in candidates)
    raise BackendUnavailableError(f"CUDA cannot be used: {reasons}")


def open_driver(wish: str = "auto") -> Driver:
    """The driver that `wish`, one of CUDA_DRIVERS, leads to, always the same one. Any thread may ask.

    Raises BackendUnavailableError where no package, no driver or no GPU is there.
    """
    with _lock:
        problems = {name: _problem(name) if wish in ("auto", name) else "was not asked for" for name in PREFERRED}
        name = choose_driver(wish, problems)
        log.debug("CUDA is called through %s", name)
        return _drivers[name]


def _problem(name: str) -> str:
    """Why the package cannot be used; "" where it can, and then it is among the drivers."""
    if name in _drivers:
        return ""
    try:
        driver = _make(name)
        gpus = driver.gpus()
    except ImportError as error:
        return _import_problem(name, str(error))
    except CudaError as error:
        return "this machine has no NVIDIA GPU" if error.code == NO_DEVICE else str(error)
    except Exception as error:  # cuda.bindings has an error of its own for a library that it cannot find
        return _no_driver(str(error))
    if not gpus:
        return "this machine has no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides them all"
    _drivers[name] = driver
    return ""


def _import_problem(name: str, message: str) -> str:
    if "libcuda" in message:
        return _no_driver(message)
    if "No module named" in message:
        return f"it is not installed; install it with: {_INSTALL[name]}"
    return f"it cannot be imported: {message}"


def _no_driver(message: str) -> str:
    return f"there is no usable NVIDIA driver (libcuda.so.1): {' '.join(message.split())}"


def _make(name: str) -> Driver:
    if name == "pycuda":
        from trtserve_engines.cuda.pycuda_driver import PycudaDriver

        return PycudaDriver()
    from trtserve_engines.cuda.cuda_bindings_driver import BindingsDriver

    return BindingsDriver()
