"""A request and its answer as the core knows them: arrays, rows, deadline, and where the answer goes. No protobuf."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtserve_server.errors import RequestError

BatchKey = tuple[tuple[int, ...], ...]
"""What requests must have in common to share a batch: the shape of each input without its rows."""


@dataclass(slots=True)
class BatchTiming:
    """When a batch went through its phases, in seconds of the monotonic clock and in ns; one for all its requests.

    `idle_since` is when the instance that ran it had become free, `cut` when the batch was closed, `started` and
    `ended` when the instance began and finished it.
    """

    instance: str
    rows: int
    idle_since: float
    cut: float
    started: float
    ended: float
    input_ns: int
    compute_ns: int
    output_ns: int


@dataclass(slots=True)
class InferResponse:
    """The outputs of one request, each with as many rows as the request, and where its time went."""

    outputs: Mapping[str, np.ndarray]
    arrived: float
    timing: BatchTiming

    @property
    def batch_wait_s(self) -> float:
        """How long the request waited for others to share its batch, while an instance was free to run it."""
        return max(0.0, self.timing.cut - max(self.arrived, self.timing.idle_since))

    @property
    def queue_s(self) -> float:
        """How long the request waited for its turn: from its arrival to its run, without `batch_wait_s`."""
        return self.timing.started - self.arrived - self.batch_wait_s


STRING_BYTES = 64
"""What a string of a tensor takes in memory beside its bytes, about: an object, and the reference to it."""


def held_bytes(arrays: Mapping[str, Any]) -> int:
    """The memory that inputs hold; those that lie outside this process hold none."""
    return sum(
        array.nbytes + (array.size * STRING_BYTES if array.dtype.kind == "O" else 0)
        for array in arrays.values()
        if isinstance(array, np.ndarray)
    )


Outcome = InferResponse | RequestError
Complete = Callable[[Outcome], None]


class InferRequest:
    """One request on its way through the core.

    `complete` is called exactly once, on the scheduling thread, with the answer. `deadline` is when the caller wants
    the answer, on the monotonic clock; `wait_limit_s` how long the request may wait for its run to start; both are
    infinity where there is none. `priority` is 1 for the highest, 0 for the model's default. `size_bytes` is the memory
    that the request holds, `shared_bytes` that of a larger one of which it is a piece and which is counted among what
    is in flight: only in the queue it counts again. `number` and `expires` belong to the queue: `number` is 0 while the
    request is in none. `in_place` says that its tensors lie where a run of this request alone can use them, and are so
    large that to copy them into a batch takes longer than a short run. `cached_outputs` names the outputs that an
    answer from the cache must have, () = all; None = no cache.
    """

    __slots__ = (
        "arrived",
        "batch_key",
        "cached_outputs",
        "complete",
        "deadline",
        "done",
        "expires",
        "in_place",
        "inputs",
        "level",
        "number",
        "priority",
        "rows",
        "shared_bytes",
        "size_bytes",
        "wait_limit_s",
    )

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        complete: Complete,
        *,
        arrived: float,
        deadline: float = math.inf,
        priority: int = 0,
        wait_limit_s: float = math.inf,
        size_bytes: int = 0,
    ) -> None:
        self.inputs: Mapping[str, Any] = inputs
        self.complete = complete
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.wait_limit_s = wait_limit_s
        self.size_bytes = size_bytes
        self.shared_bytes = 0
        self.rows = 1
        self.batch_key: BatchKey = ()
        self.in_place = False
        self.cached_outputs: Sequence[str] | None = ()
        self.number = 0
        self.level = 1
        self.expires = deadline
        self.done = False

    @property
    def waiting(self) -> bool:
        """Whether the request is in a queue and may still be put into a batch."""
        return self.number > 0
