"""Optimization profiles as text and as data: for each dynamic input its smallest, its usual and its largest shape.

Knows neither TensorRT nor a model; `profiles.py` puts profiles and a model together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trtserve_engines.config import ConfigError

Shape = tuple[int, ...]

_DIMS = r"-?\d+(?:x-?\d+)*"
_INPUT = re.compile(rf"(?P<name>\S+?)=(?P<ranges>{_DIMS}(?::{_DIMS}){{0,2}})(?:[,\s]+|$)")
_SHAPE_OF = "MIN:OPT:MAX, for example x=1x3x224x224:8x3x224x224:32x3x224x224 (one shape alone: it is all three)"


class ShapeRange(NamedTuple):
    """What one input may have under one profile: shapes, or for an input that the graph reads as a shape, values."""

    min: Shape
    opt: Shape
    max: Shape

    def __str__(self) -> str:
        shapes = [self.min] if self.min == self.max else list(self)
        return ":".join("x".join(map(str, shape)) for shape in shapes)

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether `shape` has as many dimensions and lies between min and max."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )


@dataclass(frozen=True)
class ProfileShapes:
    """One optimization profile: the range of each dynamic input, by name, ordered by name."""

    inputs: tuple[tuple[str, ShapeRange], ...]

    def __post_init__(self) -> None:
        for name, shapes in self.inputs:
            _check_range(name, shapes)
        names = [name for name, _ in self.inputs]
        if len(set(names)) != len(names):
            raise ConfigError(f"the profile names input {max(names, key=names.count)!r} twice")

    @classmethod
    def of(cls, inputs: Mapping[str, ShapeRange]) -> ProfileShapes:
        """The profile of these ranges."""
        return cls(tuple(sorted(inputs.items())))

    @classmethod
    def parse(cls, text: str) -> ProfileShapes:
        """The profile that `text` writes: NAME=MIN:OPT:MAX, several inputs with commas or spaces between them."""
        inputs: list[tuple[str, ShapeRange]] = []
        position = 0
        stripped = text.strip()
        while position < len(stripped):
            match = _INPUT.match(stripped, position)
            if match is None:
                raise ConfigError(f"profile {text!r}: {stripped[position:]!r} is not NAME={_SHAPE_OF}")
            inputs.append((match["name"], _parse_range(match["ranges"], text)))
            position = match.end()
        if not inputs:
            raise ConfigError(f"profile {text!r} names no input; wanted is NAME={_SHAPE_OF}")
        return cls(tuple(sorted(inputs)))

    def range_of(self, name: str) -> ShapeRange | None:
        """The range of input `name`; None where the profile does not name it."""
        return dict(self.inputs).get(name)

    def __str__(self) -> str:
        return " ".join(f"{name}={shapes}" for name, shapes in self.inputs)


def _parse_range(text: str, profile: str) -> ShapeRange:
    shapes = [tuple(int(size) for size in shape.split("x")) for shape in text.split(":")]
    if len(shapes) == 2:
        raise ConfigError(f"profile {profile!r}: {text} has two shapes; wanted is {_SHAPE_OF}")
    return ShapeRange(shapes[0], shapes[len(shapes) // 2], shapes[-1])


def _check_range(name: str, shapes: ShapeRange) -> None:
    if len({len(shape) for shape in shapes}) != 1:
        raise ConfigError(f"profile, input {name!r}: {shapes} differ in their number of dimensions")
    for axis, (low, usual, high) in enumerate(zip(*shapes, strict=True)):
        if not low <= usual <= high:
            raise ConfigError(
                f"profile, input {name!r}: {shapes} has {low}, {usual}, {high} on axis {axis};"
                " each must be at least as large as the one before"
            )
