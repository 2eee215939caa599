"""The classification extension: the largest values of an output as "value:index:label" strings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trtserve_protos import dtypes
from trtserve_server.errors import InvalidRequest


def classify(scores: np.ndarray, count: int, labels: Sequence[str], *, batched: bool) -> np.ndarray:
    """The `count` largest scores, largest first, as a BYTES array: [rows, n] for a batch, else [n].

    Each element is "value:index", with ":label" where `labels` has one for the index. Each row of `scores`
    counts as flat. Raises InvalidRequest where there is nothing to rank.
    """
    if scores.dtype.kind not in "fiu" and scores.dtype.name != "bfloat16":
        datatype = dtypes.from_numpy(scores.dtype).name
        raise InvalidRequest(f"classification needs an output of numbers; this one is {datatype}, ask for it as it is")
    rows = scores.reshape(len(scores) if batched else 1, -1)
    result = np.empty((len(rows), min(count, rows.shape[1])), object)
    for number, row in enumerate(rows):
        largest = np.argsort(-row.astype(np.float64), kind="stable")[: result.shape[1]]
        result[number] = [_class(row, index, labels) for index in largest]
    return result if batched else result[0]


def _class(row: np.ndarray, index: int, labels: Sequence[str]) -> bytes:
    value = f"{float(row[index]):f}" if row.dtype.kind not in "iu" else str(row[index])
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{value}:{index}{label}".encode()
