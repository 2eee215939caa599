"""A batch: requests that run together, the split of its outputs by rows, and the one place that completes requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trtserve_engines.engine import BatchResult
from trtserve_server.errors import RequestError
from trtserve_server.request import BatchTiming, InferRequest, InferResponse, Outcome


class Batch:
    """Requests in the order of their rows, cut at time `cut` for an instance that was free since `idle_since`.

    `parts` are their inputs as they were when the batch was cut: a request that is given up meanwhile loses its own
    hold on them, which must not disturb the run. `threads` is how many the run may use, 0 where the engine decides.
    """

    __slots__ = ("cut", "idle_since", "parts", "requests", "rows", "size_bytes", "threads")

    def __init__(
        self, requests: Sequence[InferRequest], *, cut: float = 0.0, idle_since: float = 0.0, threads: int = 0
    ) -> None:
        self.requests = requests
        self.parts = [request.inputs for request in requests]
        self.rows = sum([request.rows for request in requests])
        self.size_bytes = sum([request.size_bytes for request in requests])
        self.cut = cut
        self.idle_since = idle_since
        self.threads = threads

    def __str__(self) -> str:
        threads = f" with {self.threads} threads" if self.threads else ""
        return f"{self.rows} rows of {len(self.requests)} requests{threads}"


def resolve(request: InferRequest, outcome: Outcome) -> bool:
    """Completes a request, once: a later call changes nothing and returns False."""
    if request.done:
        return False
    request.done = True
    complete, request.complete = request.complete, _completed
    request.inputs = {}  # whoever still holds the request must hold neither its tensors nor its answer
    complete(outcome)
    return True


def _completed(outcome: Outcome) -> None:
    """Takes the place of what a completed request would have called."""
    raise AssertionError("a request is completed once")


def resolve_batch(batch: Batch, result: BatchResult, timing: BatchTiming) -> list[InferRequest]:
    """Hands each request its rows; returns those that were still waiting for them."""
    answered = []
    row = 0
    alone = len(batch.requests) == 1
    for request in batch.requests:
        end = row + request.rows
        outputs = result.outputs if alone else {name: array[row:end] for name, array in result.outputs.items()}
        if resolve(request, InferResponse(outputs, request.arrived, timing)):
            answered.append(request)
        row = end
    return answered


def fail_batch(batch: Batch, error: RequestError) -> list[InferRequest]:
    """Fails every request of the batch that still waits for its answer, and returns those."""
    return [request for request in batch.requests if resolve(request, error)]


def row_problem(batch: Batch, outputs: Mapping[str, np.ndarray], *, batched: bool) -> str:
    """What is wrong with the number of rows; "" where each request can be given its own.

    Without `batched` the batch is one request, whose outputs have whatever shape the model gives them.
    """
    if not batched:
        return ""
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != batch.rows:
            return f"the model gave output {name!r} with shape {list(array.shape)} for a batch of {batch.rows} rows"
    return ""
