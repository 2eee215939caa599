"""The only place that imports `tensorrt`: late, because it loads gigabytes, and with one line where it cannot be used.

Call it only once CUDA is proven to work: without a driver TensorRT's objects are built around nothing and crash the
process at first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from trtserve_engines.errors import BackendUnavailableError

OLDEST = (10, 11)
"""The first version that has all of the API that is used here."""

_INSTALL = "install it with: pip install 'trtserve[tensorrt]'"


def import_tensorrt() -> Any:
    """The module. Raises BackendUnavailableError where it is absent, cannot be loaded or is too old."""
    try:
        module = importlib.import_module("tensorrt")
        version = module.__version__
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(f"TensorRT is not installed ({error}); {_INSTALL}") from None
    except (ImportError, OSError, AttributeError) as error:
        raise BackendUnavailableError(f"TensorRT is installed but cannot be loaded ({error}); {_INSTALL}") from error
    if version_numbers(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BackendUnavailableError(f"TensorRT {version} is too old; wanted is {oldest} or newer; {_INSTALL}")
    return module


def version_numbers(version: str) -> tuple[int, ...]:
    """(11, 4, 0, 106) for "11.4.0.106"; a part that is no number ends it."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
