"""How many rows the inputs of a request have, and whether a model takes as many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trtserve_protos import dtypes
from trtserve_server.errors import InvalidRequest


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


def _rows(name: str, inputs: Mapping[str, np.ndarray]) -> int:
    counts = {each: len(array) for each, array in inputs.items()}
    rows = next(iter(counts.values()))
    if any(count != rows for count in counts.values()):
        raise InvalidRequest(f"model {name!r}: inputs differ in their number of rows: {counts}; make them equal")
    return rows
