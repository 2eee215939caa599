"""What the real bindings of the chosen generation have: version, enums, and the names that each class may show.

SIMULATED_TENSORRT_VERSION chooses: 11.4 (the default) or 10.16.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

GENERATION = os.environ.get("SIMULATED_TENSORRT_VERSION", "11.4")
MANIFEST = json.loads(
    (Path(__file__).resolve().parents[2] / "manifests" / f"api-{GENERATION}.json").read_text(encoding="utf-8")
)
VERSION: str = MANIFEST["version"]
VERSION_NUMBERS = tuple(int(part) for part in VERSION.split("."))


class Enum:
    """A pybind11 enum: values with a name, a number and an order, no class of Python's enum module."""

    __members__: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: int) -> None:
        if value not in {member.value for member in self.__members__.values()} and self.__members__:
            raise ValueError(f"{value} is not a valid {type(self).__name__}")
        self._value = int(value)

    @property
    def value(self) -> int:
        return self._value

    @property
    def name(self) -> str:
        return next(name for name, member in self.__members__.items() if member.value == self._value)

    def __int__(self) -> int:
        return self._value

    def __index__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._value == self._value

    def __lt__(self, other: Any) -> bool:
        return self._value < other._value

    def __le__(self, other: Any) -> bool:
        return self._value <= other._value

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._value))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self._value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def enum(name: str) -> Any:
    """The enum `name` with the numbers of this generation."""
    short = name.rpartition(".")[2]
    cls = type(short, (Enum,), {"__module__": "tensorrt", "__members__": {}})
    members = {member: cls(number) for member, number in MANIFEST["classes"][name].items() if isinstance(number, int)}
    cls.__members__ = members
    for member, value in members.items():
        setattr(cls, member, value)
    return cls


class Native:
    """Base of everything that is C++ in the real bindings: takes no attribute that the class does not have."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_own = type(self).__module__.partition(".")[0] == "tensorrt"
        if is_own and not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        object.__setattr__(self, name, value)


def as_in_this_generation(cls: type, name: str = "") -> type:
    """Takes from `cls` the public members that this generation of the real class lacks."""
    real = MANIFEST["classes"][name or cls.__name__]
    for member in [member for member in vars(cls) if not member.startswith("_") and member not in real]:
        delattr(cls, member)
    return cls


BuilderFlag = enum("BuilderFlag")
DataType = enum("DataType")
EngineStat = enum("EngineStat")
ErrorCode = enum("ErrorCode")
ExecutionContextAllocationStrategy = enum("ExecutionContextAllocationStrategy")
HardwareCompatibilityLevel = enum("HardwareCompatibilityLevel")
LayerInformationFormat = enum("LayerInformationFormat")
MemoryPoolType = enum("MemoryPoolType")
NetworkDefinitionCreationFlag = enum("NetworkDefinitionCreationFlag")
OnnxParserFlag = enum("OnnxParserFlag")
PreviewFeature = enum("PreviewFeature")
ProfilingVerbosity = enum("ProfilingVerbosity")
Severity = enum("ILogger.Severity")
TacticSource = enum("TacticSource")
TensorFormat = enum("TensorFormat")
TensorIOMode = enum("TensorIOMode")
TensorLocation = enum("TensorLocation")
TilingOptimizationLevel = enum("TilingOptimizationLevel")

_ITEM_SIZES = {
    "FLOAT": 4.0, "HALF": 2.0, "BF16": 2.0, "INT8": 1.0, "UINT8": 1.0, "INT32": 4.0, "INT64": 8.0, "BOOL": 1.0,
    "FP8": 1.0, "INT4": 0.5, "FP4": 0.5, "E8M0": None,
}  # fmt: skip
DataType.itemsize = property(lambda self: _ITEM_SIZES[self.name])
