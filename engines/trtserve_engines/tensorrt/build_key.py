"""The key of an engine that is about to be looked for or built: reads and digests the files that a build depends on."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.device import GpuIdentity
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.engine_key import SCHEMA, EngineKey


def engine_key(
    model_digest: str, config: BuildConfig, gpu: GpuIdentity, tensorrt_version: str, recipe: Mapping[str, Any]
) -> EngineKey:
    """The key of what `config` makes of the model on `gpu`. Raises ConfigError where a file of it cannot be read.

    The profiles of `config` are final; `recipe` names the tool that rewrites the graph, and its version.
    """
    return EngineKey(
        {
            "schema": SCHEMA,
            "model": model_digest,
            "build": config.key_fields(),
            "recipe": {**recipe, **_calibration(config)},
            "plugins": _plugins(config),
            "tensorrt": tensorrt_version,
            "gpu": gpu.key_fields(),
            "platform": f"{sys.platform}-{platform.machine()}",
        }
    )


def _calibration(config: BuildConfig) -> dict[str, str]:
    return {"calibration": file_digest(config.calibration, "calibration")} if config.calibration else {}


def _plugins(config: BuildConfig) -> dict[str, str]:
    digests: dict[str, str] = {}
    for path in config.plugins:
        name = Path(path).name
        if name in digests:
            raise ConfigError(f"plugins has two libraries called {name!r}; rename one of them")
        digests[name] = file_digest(path, "plugins")
    return digests


def file_digest(path: str, option: str) -> str:
    """SHA-256, in hex, of the file that an option names. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{option}: {path!r} cannot be read: {error.strerror}") from error
