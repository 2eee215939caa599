"""What the build process is told, and the lines that it sends back: plain JSON, one object per line."""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import (
    BackendUnavailableError,
    BuildError,
    EngineError,
    ModelFileError,
    RecipeError,
    SignatureError,
    UnsupportedModelError,
)
from trtserve_engines.tensorrt.build_config import BuildConfig

_ERRORS: dict[str, type[EngineError]] = {
    cls.__name__: cls
    for cls in (
        BackendUnavailableError,
        BuildError,
        ConfigError,
        ModelFileError,
        RecipeError,
        SignatureError,
        UnsupportedModelError,
    )
}


@dataclass(frozen=True)
class BuildJob:
    """One build: the model file, how, on which GPU (as the driver counts), and timings of earlier builds there.

    `config` holds the profiles that the model will have; see `profiles.with_profiles`.
    """

    model: Path
    config: BuildConfig
    gpu: int = 0
    cuda_driver: str = "auto"
    timing_cache: bytes = b""

    def to_json(self) -> str:
        """The job as one line."""
        return json.dumps(
            {
                "model": str(self.model),
                "config": dataclasses.asdict(self.config),
                "gpu": self.gpu,
                "cuda_driver": self.cuda_driver,
                "timing_cache": base64.b64encode(self.timing_cache).decode(),
            }
        )

    @classmethod
    def from_json(cls, line: str) -> BuildJob:
        """The job that `to_json` wrote."""
        values = json.loads(line)
        config: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values["config"].items()
        }
        return cls(
            model=Path(values["model"]),
            config=BuildConfig(**config),
            gpu=values["gpu"],
            cuda_driver=values["cuda_driver"],
            timing_cache=base64.b64decode(values["timing_cache"]),
        )


def message_of_error(error: EngineError) -> dict[str, Any]:
    """The error as a message of the build process; one of a class that the other side does not know is a BuildError."""
    known = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _ERRORS), BuildError.__name__)
    return {"error": known, "text": str(error), "log": list(getattr(error, "log_lines", ()))}


def error_of_message(message: dict[str, Any]) -> EngineError:
    """The error that `message_of_error` wrote."""
    cls = _ERRORS[message["error"]]
    if issubclass(cls, BuildError):
        return cls(message["text"], message["log"])
    return cls(message["text"])
