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


Located = tuple[np.ndarray | None, int]
"""An array and its address."""

_NOWHERE: Located = None, 0


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
    inputs = [_source(part[spec.name]) if spec.name in by_value else _NOWHERE for spec in signature.inputs]
    outputs = []
    for spec, shape in zip(signature.outputs, output_shapes, strict=True):
        place = part.places.get(spec.name) if spec.name in by_value else None
        outputs.append(_NOWHERE if place is None or shape is None else _located(place.array(spec.dtype, shape)))
    return InPlace(
        [array for array, _ in inputs],
        [array for array, _ in outputs],
        tuple([address for _, address in (*inputs, *outputs)]),
    )


def _source(tensor: np.ndarray | TensorSource) -> Located:
    return _NOWHERE if isinstance(tensor, np.ndarray | np.generic) else _located(tensor.in_place())


def _located(array: np.ndarray | None) -> Located:
    if array is None:
        return _NOWHERE
    address = int(array.__array_interface__["data"][0])
    return _NOWHERE if address % ALIGNMENT else (array, address)
