"""Why a request gets an error: what an instance made of its batch, or the time that has passed."""

from __future__ import annotations

import logging

from trtserve_engines.engine import BatchResult
from trtserve_engines.errors import ExecutionError, OutOfMemoryError, SignatureError
from trtserve_server.errors import InferenceFailed, InvalidRequest, OutOfMemory, RequestError
from trtserve_server.flood_guard import FloodGuard
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.batch import Batch, row_problem

log = logging.getLogger(__name__)
log.addFilter(FloodGuard())  # a client may send what fails again and again


def failure(name: str, batch: Batch, outcome: BatchResult | Exception, *, batched: bool) -> RequestError | None:
    """The error of a batch of model `name`, which is logged; None where the requests can be given their rows."""
    if isinstance(outcome, BatchResult):
        problem = row_problem(batch, outcome.outputs, batched=batched)
        return InferenceFailed(f"model {name!r}: {problem}") if problem else None
    if isinstance(outcome, SignatureError):  # what only the run can tell, such as values that are read as shapes
        return InvalidRequest(f"model {name!r}: {outcome}")
    if isinstance(outcome, OutOfMemoryError | MemoryError):
        reason = str(outcome) or type(outcome).__name__
        log.warning("%s: there was too little memory for a batch of %d rows: %s", name, batch.rows, reason)
        return OutOfMemory(
            f"model {name!r}: there was too little memory for the run: {reason}; send less at once, or later."
            " On the server, a smaller max_batch_size, fewer instances or fewer models need less"
        )
    if isinstance(outcome, ExecutionError):
        log.warning("%s: a batch of %d rows failed: %s", name, batch.rows, outcome)
        return InferenceFailed(f"model {name!r}: {outcome}")
    log.error("%s: a batch of %d rows failed", name, batch.rows, exc_info=outcome)
    return InferenceFailed(f"model {name!r} failed with {type(outcome).__name__}; the log has the details")


def expired(request: InferRequest, now: float) -> str:
    """Which of its times is over for a request that has waited for its turn until now."""
    if request.deadline <= now:
        return "the deadline passed while the request waited in the queue"
    waited_ms = (request.expires - request.arrived) * 1e3
    return f"the request's timeout of {waited_ms:.6g} ms passed while it waited in the queue"


def late_at_its_turn(request: InferRequest, now: float, run_s: float) -> str:
    """Says of a request whose turn has come that it would be answered too late by a run that takes `run_s`."""
    return (
        f"its turn came with {(request.deadline - now) * 1e3:.3g} ms left, too little for the run of the model, which"
        f" takes about {run_s * 1e3:.3g} ms; allow more time"
    )
