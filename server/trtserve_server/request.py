"""A request and its answer as the core knows them: arrays, rows, deadline, and where the answer goes. No protobuf."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtserve_server.errors import RequestError

BatchKey = tuple[tuple[int, ...], ...]
"""What requests must have in common to share a batch: the shape of each input without its rows."""


@dataclass(slots=True)
class Timing:
    """When the phases of a request began and ended, in seconds of the monotonic clock, and the batch that it ran in.

    It waits in the queue until its batch is `cut`, and the batch for its instance until it is `started`.
    """

    arrived: float
    cut: float
    started: float
    ended: float
    input_ns: int
    compute_ns: int
    output_ns: int
    batch_rows: int
    instance: str


@dataclass(slots=True)
class InferResponse:
    """The outputs of one request, each with as many rows as the request, and where its time went."""

    outputs: Mapping[str, np.ndarray]
    timing: Timing


Outcome = InferResponse | RequestError
Complete = Callable[[Outcome], None]


class InferRequest:
    """One request on its way through the core.

    `complete` is called exactly once, on the scheduling thread, with the answer. `deadline` is on the monotonic
    clock, infinity where there is none. `priority` is 1 for the highest; 0 has been replaced by the default before.
    """

    __slots__ = (
        "arrived",
        "batch_key",
        "complete",
        "deadline",
        "done",
        "inputs",
        "priority",
        "rows",
        "running",
    )

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        complete: Complete,
        *,
        arrived: float,
        deadline: float = math.inf,
        priority: int = 1,
    ) -> None:
        self.inputs: Mapping[str, Any] = inputs
        self.complete = complete
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.rows = 1
        self.batch_key: BatchKey = ()
        self.running = False
        self.done = False

    @property
    def waiting(self) -> bool:
        """Whether the request may still be put into a batch."""
        return not (self.running or self.done)
