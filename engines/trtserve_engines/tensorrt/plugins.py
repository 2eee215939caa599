"""Plugin libraries: native code that a model's operators need. Only what the operator of the server has listed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.trt_log import TensorRtLog

_loaded: set[str] = set()


def check_allowed(wanted: BuildConfig, server: BuildConfig) -> None:
    """Raises ConfigError where a model's own options name code to be run that the server's own do not name.

    Who may put a model into a repository is not thereby allowed to run programs.
    """
    known = {os.path.realpath(path) for path in server.plugins}
    for path in wanted.plugins:
        if os.path.realpath(path) not in known:
            raise ConfigError(
                f"plugin library {path} is not among those that the server allows"
                f" ({', '.join(server.plugins) or 'none'}); it would run as native code, so the server's own"
                " configuration has to list it"
            )
    if wanted.modelopt_python not in ("", server.modelopt_python):
        raise ConfigError(
            f"modelopt_python = {wanted.modelopt_python!r} names a program, so only the server's own configuration may"
            " set it"
        )


def load_plugins(trt: Any, plugins: Sequence[str], log: TensorRtLog) -> None:
    """Makes the plugins known to this process: TensorRT's own and these libraries, each once."""
    trt.init_libnvinfer_plugins(log.native, "")
    for path in plugins:
        key = f"{id(trt)} {os.path.realpath(path)}"
        if key in _loaded:
            continue
        _check_file(path)
        with log.collect() as lines:
            handle = trt.get_plugin_registry().load_library(path)
        if handle is None:
            raise BackendUnavailableError(f"plugin library {path} cannot be loaded: {lines.reason()}")
        _loaded.add(key)


def _check_file(path: str) -> None:
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise BackendUnavailableError(
            f"plugin library {path} is not there or cannot be read; install it or fix the path"
        )
