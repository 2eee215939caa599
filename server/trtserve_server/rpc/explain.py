"""Explains an answer to the caller that asks: the timing of its request, as parameters of the response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtserve_protos import timing
from trtserve_server.models.served_model import ServedModel
from trtserve_server.request import Timing

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelInferResponse

_NS = 1e9


def explain(header: ModelInferResponse, model: ServedModel, times: Timing) -> None:
    """Puts where the time went into the response's parameters."""
    explained = timing.Timing(
        queue_ns=int((times.cut - times.arrived) * _NS),
        batch_wait_ns=int((times.started - times.cut) * _NS),
        input_ns=times.input_ns,
        compute_ns=times.compute_ns,
        output_ns=times.output_ns,
        batch_rows=times.batch_rows,
        instance=times.instance,
        engine=model.backend,
    )
    timing.fill_parameters(header.parameters, explained)
