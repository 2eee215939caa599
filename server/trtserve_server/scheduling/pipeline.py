"""Runs batches through a context that can have several on their way: while one computes, the next is copied in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from trtserve_engines.engine import BatchResult, PipelinedContext
from trtserve_server.scheduling.batch import Batch

Report = Callable[[Batch, BatchResult | Exception, float, float], None]


class _Flight(NamedTuple):
    """A batch that was launched at time `start` and not yet collected."""

    batch: Batch
    start: float
    pending: Any


def run_pipelined(
    context: PipelinedContext, inbox: SimpleQueue[Batch | None], report: Report, now: Callable[[], float]
) -> None:
    """Launches what comes and collects it in order, until None comes; then what was launched is collected.

    `report` is called after each batch with its outcome, and when it began and ended: it begins with its launch, or
    with the end of the one before it.
    """
    flights: deque[_Flight] = deque()
    ended = 0.0
    open_ = True
    while open_ or flights:
        while open_ and len(flights) < context.depth:
            try:
                batch = inbox.get(block=not flights)
            except Empty:
                break
            if batch is None:
                open_ = False
                break
            _launch(context, batch, flights, report, now)
        if flights:
            flight = flights.popleft()
            outcome = _collected(context, flight.pending)
            begun, ended = max(flight.start, ended), now()
            report(flight.batch, outcome, begun, ended)
            del flight, outcome  # the wait for the next one must not keep this one's tensors


def _launch(
    context: PipelinedContext, batch: Batch, flights: deque[_Flight], report: Report, now: Callable[[], float]
) -> None:
    start = now()
    try:
        flights.append(_Flight(batch, start, context.launch(batch.parts)))
    except Exception as error:
        report(batch, error, start, now())


def _collected(context: PipelinedContext, pending: Any) -> BatchResult | Exception:
    try:
        return context.collect(pending)
    except Exception as error:
        return error
