"""What an engine was built from, as one key: its fields in clear, their digest, and in what two keys differ.

Pure data. It reads no file and knows no cache; who makes a key gives every field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

SCHEMA = 1
"""Raised whenever the builder would make another engine of the same fields, or a field gets another meaning."""

_LABELS = {
    "schema": "trtserve's builder",
    "model": "ONNX model",
    "tensorrt": "TensorRT",
    "platform": "platform",
    "gpu.name": "GPU",
    "gpu.compute_capability": "compute capability",
    "gpu.sm_count": "number of SMs",
    "gpu.memory_bytes": "GPU memory in bytes",
    "gpu.driver_version": "CUDA driver",
    "recipe.name": "precision recipe",
    "recipe.tool": "tool of the precision recipe",
    "recipe.calibration": "calibration data",
}
_GROUPS = {"build": "build option", "plugins": "plugin", "recipe": "precision recipe's"}


@dataclass(frozen=True)
class EngineKey:
    """Nested plain values: every input of a build, by name. Numbers of enums never stand in it, paths neither."""

    fields: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, over the canonical JSON of the fields."""
        return hashlib.sha256(canonical_json(self.fields)).hexdigest()

    @property
    def model(self) -> str:
        """The digest of the ONNX model and its external data."""
        return str(self.fields.get("model", ""))


@dataclass(frozen=True)
class Change:
    """A field that differs between two keys; None where one of them lacks it."""

    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{_label(self.field)} changed: {_shown(self.old)} -> {_shown(self.new)}"


def canonical_json(values: Mapping[str, Any]) -> bytes:
    """The one way to write these values as JSON. Raises ValueError for what JSON cannot hold."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    """The fields in which two keys differ, in the order of their names."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    names = sorted(before.keys() | after.keys())
    return tuple(
        Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            # A tuple comes back from JSON as a list.
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def _label(field: str) -> str:
    group, _, rest = field.partition(".")
    return _LABELS.get(field) or (f"{_GROUPS[group]} {rest}" if group in _GROUPS and rest else field)


def _shown(value: Any) -> str:
    if value in (None, ""):
        return "none"
    if isinstance(value, list) and value and all(isinstance(part, int) for part in value):
        return ".".join(map(str, value))  # a version
    text = value if isinstance(value, str) else json.dumps(value)
    is_digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return f"{text[:12]}..." if is_digest else text
