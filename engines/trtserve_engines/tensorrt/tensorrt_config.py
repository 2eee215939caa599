"""All options of TensorRT for one model in one table: how it is built, how it is run, how exact it must be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig
from trtserve_engines.tolerance import Tolerance

Part = TypeVar("Part", BuildConfig, RuntimeConfig, Tolerance)


@dataclass(frozen=True)
class TensorRtConfig(BuildConfig, RuntimeConfig, Tolerance):
    """The options of its three parts, which the properties give back one by one."""

    def __post_init__(self) -> None:
        for part in (BuildConfig, RuntimeConfig, Tolerance):
            part.__post_init__(self)

    @property
    def build(self) -> BuildConfig:
        """How the engine is built."""
        return self._part(BuildConfig)

    @property
    def runtime(self) -> RuntimeConfig:
        """How the engine is run."""
        return self._part(RuntimeConfig)

    @property
    def tolerance(self) -> Tolerance:
        """How far its outputs may be from the model's."""
        return self._part(Tolerance)

    def _part(self, cls: type[Part]) -> Part:
        return cls(**{field.name: getattr(self, field.name) for field in dataclasses.fields(cls)})
