"""What of a lone request an engine on the CPU may read and write where it lies, in memory of another process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trtserve_engines.signature import Signature
from trtserve_engines.sources import Located, PlacedArrays

ALIGNMENT = 16
"""In bytes, of what is used in place: that of numpy's own arrays, which ONNX Runtime takes as they are."""


class InPlace(NamedTuple):
    """Inputs and outputs in the signature's order, each where it lies or None; `addresses` tells two of these apart."""

    inputs: Sequence[np.ndarray | None]
    outputs: Sequence[np.ndarray | None]
    addresses: tuple[int, ...]


_ARRAYS = np.ndarray, np.generic


def nothing_in_place(signature: Signature) -> InPlace:
    """Every tensor is staged."""
    return InPlace((None,) * len(signature.inputs), (None,) * len(signature.outputs), ())


def in_place_of(
    part: PlacedArrays,
    signature: Signature,
    output_shapes: Sequence[tuple[int, ...] | None],
    by_value: frozenset[str],
) -> InPlace:
    """The tensors of `part` that lie in place: of those in `by_value`, and of outputs those whose shape is known."""
    inputs: list[np.ndarray | None] = []
    outputs: list[np.ndarray | None] = []
    addresses: list[int] = []
    for spec in signature.inputs:
        tensor = part[spec.name]
        usable = spec.name in by_value and not isinstance(tensor, _ARRAYS)
        _note(tensor.in_place() if usable else None, inputs, addresses)
    for spec, shape in zip(signature.outputs, output_shapes, strict=True):
        place = part.places.get(spec.name) if spec.name in by_value else None
        _note(place.array(spec.dtype, shape) if place is not None and shape is not None else None, outputs, addresses)
    return InPlace(inputs, outputs, tuple(addresses))


def _note(there: Located | None, arrays: list[np.ndarray | None], addresses: list[int]) -> None:
    if there is None or there.address % ALIGNMENT:
        arrays.append(None)
        addresses.append(0)
    else:
        arrays.append(there.array)
        addresses.append(there.address)
