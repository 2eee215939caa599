"""Whether the inputs of a request fit a model, and how many rows they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trtserve_engines.engine import ShapeRanges
from trtserve_engines.errors import SignatureError
from trtserve_engines.shape_ranges import check_shapes
from trtserve_engines.signature import Signature
from trtserve_protos import dtypes
from trtserve_server.errors import InvalidRequest


def check_inputs(
    name: str,
    signature: Signature,
    inputs: Mapping[str, np.ndarray],
    *,
    batched: bool,
    ranges: Sequence[ShapeRanges] = (),
) -> None:
    """Raises InvalidRequest unless `inputs` are those of the signature, of shapes that one of `ranges` takes."""
    try:
        signature.check(inputs, wire_name)
        check_shapes(ranges, signature, inputs, batched=batched)
    except SignatureError as error:
        hint = _dimensions_hint(signature, inputs, batched=batched)
        raise InvalidRequest(f"model {name!r}: {error}{hint}") from None


def request_rows(name: str, inputs: Mapping[str, np.ndarray], max_batch_size: int) -> int:
    """The rows of a request to a batched model. Raises InvalidRequest where they differ or are none or too many."""
    rows = _rows(name, inputs)
    if not 0 < rows <= max_batch_size:
        raise InvalidRequest(
            f"model {name!r}: a batch of {rows} rows given, 1 to {max_batch_size} wanted;"
            " send fewer rows per request or raise max_batch_size"
        )
    return rows


def batch_rows(name: str, inputs: Mapping[str, np.ndarray], max_batch_size: int, batching_reason: str) -> int:
    """The rows of a batch that will be cut into pieces. Raises InvalidRequest where there are none."""
    if not max_batch_size:
        raise InvalidRequest(f"model {name!r} is not batched ({batching_reason}), so it has no rows; send ModelInfer")
    rows = _rows(name, inputs)
    if rows == 0:
        raise InvalidRequest(f"model {name!r}: a batch of 0 rows given, 1 or more wanted")
    return rows


def wire_name(dtype: np.dtype) -> str:
    """The protocol's name of a numpy type."""
    return dtypes.from_numpy(dtype).name


def _dimensions_hint(signature: Signature, inputs: Mapping[str, np.ndarray], *, batched: bool) -> str:
    """What to do about an input that has too many or too few dimensions; "" where that is not what is wrong."""
    specs = signature.input_by_name
    for name, array in inputs.items():
        if name in specs and len(array.shape) != len(specs[name].shape):
            if batched:
                return "; the first dimension counts rows: give it to every input, 1 for a single row, or to none"
            return "; the model is not batched: send its inputs in the shape of the graph"
    return ""


def _rows(name: str, inputs: Mapping[str, np.ndarray]) -> int:
    counts = {each: len(array) for each, array in inputs.items()}
    rows = next(iter(counts.values()))
    if any(count != rows for count in counts.values()):
        raise InvalidRequest(f"model {name!r}: inputs differ in their number of rows: {counts}; make them equal")
    return rows
