"""The simulated `tensorrt` package in this process, one generation at a time, without any driver."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "simulation" / "tensorrt_simulated"
GENERATIONS = ("10.16", "11.4")


def environment(generation: str) -> dict[str, str]:
    """What a child process needs to import this generation, with work done at once on the host."""
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "SIMULATED_TENSORRT_VERSION": generation, "SIMULATED_TENSORRT_DEVICE": "host"}


@contextmanager
def simulated_tensorrt(generation: str) -> Iterator[Any]:
    """Imports the package afresh; afterwards it is as if it had never been there."""
    before = {name: os.environ.get(name) for name in environment(generation)}
    os.environ.update(environment(generation))
    sys.path.insert(0, str(FOLDER))
    _forget()
    try:
        yield importlib.import_module("tensorrt")
    finally:
        _forget()
        sys.path.remove(str(FOLDER))
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt"]:
        del sys.modules[name]
