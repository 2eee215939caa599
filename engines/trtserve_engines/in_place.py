"""What of a lone request an engine on the CPU may read and write where it lies, in memory of another process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trtserve_engines.signature import Signature
from trtserve_engines.sources import PlacedArrays, TensorSource

ALIGNMENT = 16
"""In bytes, of what is used in place: that of numpy's own arrays, which ONNX Runtime takes as they are."""


class InPlace(NamedTuple):
    """Inputs and outputs in the signature's order, each where it lies or None; `addresses` tells two of these apart."""

    inputs: Sequence[np.ndarray | None]
    outputs: Sequence[np.ndarray | None]
    addresses: tuple[int, ...]


def nothing_in_place(signature: Signature) -> InPlace:
    """Every tensor is staged."""
    return InPlace((None,) * len(signature.inputs), (None,) * len(signature.outputs), ())


def in_place_of(
    part: PlacedArrays,
    signature: Signature,
    output_shapes: Sequence[Sequence[int] | None],
    by_value: frozenset[str],
) -> InPlace:
    """The tensors of `part` that lie in place: of those in `by_value`, and of outputs those whose shape is known."""
    inputs = [_aligned(_source(part[spec.name])) if spec.name in by_value else None for spec in signature.inputs]
    outputs = []
    for spec, shape in zip(signature.outputs, output_shapes, strict=True):
        place = part.places.get(spec.name) if spec.name in by_value else None
        outputs.append(None if place is None or shape is None else _aligned(place.array(spec.dtype, shape)))
    return InPlace(inputs, outputs, tuple([0 if array is None else _address(array) for array in (*inputs, *outputs)]))


def _source(tensor: np.ndarray | TensorSource) -> np.ndarray | None:
    return None if isinstance(tensor, np.ndarray | np.generic) else tensor.in_place()


def _aligned(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None or _address(array) % ALIGNMENT else array


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
