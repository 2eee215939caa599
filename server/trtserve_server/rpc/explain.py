"""Explains an answer to the caller that asks: the timing of its request, as parameters of the response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtserve_protos import timing
from trtserve_server.models.model import Model
from trtserve_server.request import InferResponse

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelInferResponse

_NS = 1e9


def explain(header: ModelInferResponse, model: Model, response: InferResponse) -> None:
    """Puts where the time went into the response's parameters."""
    batch = response.timing
    explained = timing.Timing(
        queue_ns=int(response.queue_s * _NS),
        batch_wait_ns=int(response.batch_wait_s * _NS),
        input_ns=batch.input_ns,
        compute_ns=batch.compute_ns,
        output_ns=batch.output_ns,
        batch_rows=batch.rows,
        instance=batch.instance,
        engine=model.backend,
    )
    timing.fill_parameters(header.parameters, explained)
