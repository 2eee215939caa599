"""A recorded trace: JSON lines, each with `at_s`, seconds from the beginning, and, where they matter, `inputs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trtserve_client.load.errors import UsageError
from trtserve_client.load.sources import Request, json_lines, request_from_plain
from trtserve_client.metadata import ModelMetadata


@dataclass(frozen=True)
class Trace:
    """When requests were sent, and what; `requests` is empty where the trace holds times alone."""

    offsets: np.ndarray
    requests: list[Request]

    @property
    def seconds(self) -> float:
        """How long it takes, to the last request."""
        return float(self.offsets[-1])


def read_trace(path: str, model: ModelMetadata) -> Trace:
    """The trace in a file, in the order of its times from the first. Raises UsageError."""
    offsets: list[float] = []
    requests: list[Request] = []
    for where, values in json_lines(Path(path), "--trace"):
        at = values.get("at_s")
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < float("inf"):
            raise UsageError(f'{where}: "at_s" {at!r}: seconds from the beginning are wanted')
        offsets.append(float(at))
        if "inputs" in values:
            requests.append(request_from_plain(values["inputs"], model, where))
    if not offsets:
        raise UsageError(f"--trace {path} holds no request")
    if requests and len(requests) != len(offsets):
        raise UsageError(f"--trace {path}: {len(requests)} of {len(offsets)} lines have inputs; give all or none")
    order = np.argsort(offsets, kind="stable")
    times = np.array(offsets)[order]
    return Trace(times - times[0], [requests[index] for index in order] if requests else [])
