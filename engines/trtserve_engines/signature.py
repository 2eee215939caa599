"""What a model takes and gives: names, numpy types and shapes, and the check of arrays against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trtserve_engines.errors import SignatureError

TypeName = Callable[[np.dtype], str]

DYNAMIC = -1
"""A dimension that may have any size."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `shape` holds sizes, DYNAMIC where any size fits; strings have the numpy type object."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    def check(self, array: np.ndarray, type_name: TypeName = str) -> None:
        """Raises SignatureError where type, shape or a string of `array` does not fit."""
        if array.dtype != self.dtype:
            raise SignatureError(
                f"input {self.name!r}: datatype {type_name(array.dtype)} given, {type_name(self.dtype)} wanted"
            )
        self._check_shape(array.shape)
        if array.dtype.kind == "O":
            self._check_strings(array)

    def _check_shape(self, shape: Sequence[int]) -> None:
        if len(shape) == len(self.shape):
            for size, wanted in zip(shape, self.shape, strict=True):
                if size != wanted and wanted != DYNAMIC:
                    break
            else:
                return
        raise SignatureError(
            f"input {self.name!r}: shape {list(shape)} given, {list(self.shape)} wanted"
            + (" (-1 takes any size)" if DYNAMIC in self.shape else "")
        )

    def _check_strings(self, array: np.ndarray) -> None:
        for index, element in enumerate(array.flat):
            try:
                if isinstance(element, bytes):
                    element.decode()
            except UnicodeDecodeError as error:
                raise SignatureError(
                    f"input {self.name!r}: element {index} is not UTF-8, as ONNX strings must be: {error}"
                ) from None


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @cached_property
    def input_by_name(self) -> dict[str, TensorSpec]:
        """Each input by its name."""
        return {spec.name: spec for spec in self.inputs}

    @cached_property
    def output_by_name(self) -> dict[str, TensorSpec]:
        """Each output by its name."""
        return {spec.name: spec for spec in self.outputs}

    def check(self, arrays: Mapping[str, np.ndarray], type_name: TypeName = str) -> None:
        """Raises SignatureError unless `arrays` holds exactly the model's inputs, each of its type and shape.

        `type_name` puts a numpy type into the words of the one who reads the message.
        """
        for spec in self.inputs:
            array = arrays.get(spec.name)
            if array is None:
                given = ", ".join(map(repr, arrays)) or "none"
                raise SignatureError(f"input {spec.name!r} is missing: given {given}, wanted {_names(self.inputs)}")
            spec.check(array, type_name)
        if len(arrays) != len(self.inputs):
            extra = next(name for name in arrays if name not in self.input_by_name)
            raise SignatureError(f"input {extra!r} is not one of the model's; wanted are {_names(self.inputs)}")

    def first_dimension_is_dynamic(self) -> bool:
        """Whether every input and every output has a first dimension of any size, as a batch dimension would be."""
        tensors = self.inputs + self.outputs
        return bool(self.inputs) and all(spec.shape and spec.shape[0] == DYNAMIC for spec in tensors)


def shapes_agree(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether both can be said of one tensor: as many dimensions, of the same sizes where neither is DYNAMIC."""
    return len(one) == len(other) and all(
        size == wanted or DYNAMIC in (size, wanted) for size, wanted in zip(one, other, strict=True)
    )


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in specs) or "none"
