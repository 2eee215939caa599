"""Plugin libraries: native code that a model's operators need. Only what the operator of the server has listed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.tensorrt.trt_log import TensorRtLog

_READ_SIZE = 1 << 20
_loaded: set[str] = set()


def check_allowed(plugins: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises ConfigError for a library that is not in `allowed`, which only the operator of the server writes."""
    known = {os.path.realpath(path) for path in allowed}
    for path in plugins:
        if os.path.realpath(path) not in known:
            raise ConfigError(
                f"plugin library {path} is not among those that are allowed ({', '.join(allowed) or 'none'});"
                " it would run as native code, so the server's own configuration has to list it"
            )


def plugin_digests(plugins: Sequence[str]) -> list[str]:
    """SHA-256, in hex, of each library, in order; part of an engine's key. Raises BackendUnavailableError."""
    return [_digest(path) for path in plugins]


def load_plugins(trt: Any, plugins: Sequence[str], log: TensorRtLog) -> None:
    """Makes the plugins known to this process: TensorRT's own and these libraries, each once."""
    trt.init_libnvinfer_plugins(log.native, "")
    for path in plugins:
        key = f"{id(trt)} {os.path.realpath(path)}"
        if key in _loaded:
            continue
        _checked(path)
        with log.collect() as lines:
            handle = trt.get_plugin_registry().load_library(path)
        if handle is None:
            raise BackendUnavailableError(f"plugin library {path} cannot be loaded: {lines.reason()}")
        _loaded.add(key)


def _digest(path: str) -> str:
    sha = hashlib.sha256()
    with _checked(path).open("rb") as file:
        while piece := file.read(_READ_SIZE):
            sha.update(piece)
    return sha.hexdigest()


def _checked(path: str) -> Path:
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise BackendUnavailableError(
            f"plugin library {path} is not there or cannot be read; install it or fix the path"
        )
    return Path(path)
