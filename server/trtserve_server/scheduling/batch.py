"""A batch: requests that run together, the split of its outputs by rows, and the one place that completes requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trtserve_engines.engine import BatchResult
from trtserve_server.errors import RequestError
from trtserve_server.request import InferRequest, InferResponse, Outcome, Timing


class Batch:
    """Requests in the order of their rows, when they were taken from the queue, and the instance that runs them.

    `parts` are their inputs as they were when the batch was cut: a request that is given up meanwhile loses its own
    hold on them, which must not disturb the run.
    """

    __slots__ = ("cut", "instance", "parts", "requests", "rows")

    def __init__(self, requests: Sequence[InferRequest], *, cut: float, instance: str) -> None:
        self.requests = requests
        self.cut = cut
        self.instance = instance
        self.parts = [request.inputs for request in requests]
        self.rows = sum(request.rows for request in requests)


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


def resolve_batch(batch: Batch, result: BatchResult, started: float, ended: float) -> list[InferRequest]:
    """Hands each request its rows; returns those that were still waiting for them."""
    answered = []
    row = 0
    alone = len(batch.requests) == 1
    for request in batch.requests:
        end = row + request.rows
        outputs = result.outputs if alone else {name: array[row:end] for name, array in result.outputs.items()}
        timing = Timing(
            request.arrived,
            batch.cut,
            started,
            ended,
            result.input_ns,
            result.compute_ns,
            result.output_ns,
            batch.rows,
            batch.instance,
        )
        if resolve(request, InferResponse(outputs, timing)):
            answered.append(request)
        row = end
    return answered


def fail_batch(batch: Batch, error: RequestError) -> list[InferRequest]:
    """Fails every request of the batch that still waits for its answer, and returns those."""
    return [request for request in batch.requests if resolve(request, error)]


def row_problem(batch: Batch, outputs: Mapping[str, np.ndarray]) -> str:
    """What is wrong with the number of rows; "" where several requests can be told apart."""
    if len(batch.requests) == 1:
        return ""
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != batch.rows:
            return f"the model gave output {name!r} with shape {list(array.shape)} for a batch of {batch.rows} rows"
    return ""
