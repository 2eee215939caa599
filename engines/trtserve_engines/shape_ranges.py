"""Whether inputs lie within what an engine was made for, and made-up inputs that do. Pure; knows no backend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trtserve_engines.engine import Arrays, Shape, ShapeRanges
from trtserve_engines.errors import SignatureError
from trtserve_engines.samples import DYNAMIC_SIZES, sample_inputs
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec


def check_shapes(ranges: Sequence[ShapeRanges], signature: Signature, inputs: Arrays, *, batched: bool) -> None:
    """Raises SignatureError where no alternative takes inputs of these shapes.

    `batched` says that first dimensions count rows, of which others may join and which are limited elsewhere.
    """
    given = {spec.name: inputs[spec.name].shape for spec in signature.inputs if DYNAMIC in spec.shape}
    start = 1 if batched else 0
    if ranges and not any(_takes(alternative, given, start) for alternative in ranges):
        wanted = " or ".join(_text(alternative, given) for alternative in ranges)
        got = ", ".join(f"{name} {_shape_text(shape)}" for name, shape in given.items())
        raise SignatureError(f"{got} given, {wanted} wanted, which is what the engine was built for")


def example_inputs(signature: Signature, ranges: Sequence[ShapeRanges], rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Made-up inputs worth trying, of so many rows where a first dimension counts rows.

    Of the usual and then the smallest shapes of each alternative; where there are none, of sizes that graphs often
    take. An engine may still refuse some of them.
    """
    if not ranges:
        dynamic = any(DYNAMIC in spec.shape[1:] for spec in signature.inputs)
        for size in DYNAMIC_SIZES if dynamic else DYNAMIC_SIZES[:1]:
            yield sample_inputs(signature, rows=rows, dynamic_size=size)
    for alternative in ranges:
        for chosen in (1, 0):
            yield _example(signature, {name: shapes[chosen] for name, shapes in alternative.items()}, rows)


def _example(signature: Signature, shapes: Mapping[str, Shape], rows: int) -> dict[str, np.ndarray]:
    fixed = tuple(_fixed(spec, shapes.get(spec.name), rows) for spec in signature.inputs)
    sample = sample_inputs(Signature(fixed, ()))
    for spec in signature.inputs:
        values = shapes.get(spec.name, ())
        if spec.dtype.kind in "iu" and DYNAMIC not in spec.shape and len(values) == math.prod(spec.shape):
            sample[spec.name] = np.array(values, spec.dtype).reshape(spec.shape)  # it is read as a shape
    return sample


def _fixed(spec: TensorSpec, shape: Shape | None, rows: int) -> TensorSpec:
    if shape is None or DYNAMIC not in spec.shape:
        return spec
    return TensorSpec(spec.name, spec.dtype, (rows, *shape[1:]) if spec.shape[0] == DYNAMIC else shape)


def _takes(alternative: ShapeRanges, given: Mapping[str, Shape], start: int) -> bool:
    for name, shape in given.items():
        smallest, _, largest = alternative[name]
        between = map(_between, smallest[start:], shape[start:], largest[start:])
        if len(shape) != len(largest) or not all(between):
            return False
    return True


def _between(low: int, size: int, high: int) -> bool:
    return low <= size <= high


def _text(alternative: ShapeRanges, given: Mapping[str, Shape]) -> str:
    texts = []
    for name in given:
        smallest, _, largest = alternative[name]
        texts.append(f"{name} {_shape_text(smallest)} to {_shape_text(largest)}")
    return ", ".join(texts)


def _shape_text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"
