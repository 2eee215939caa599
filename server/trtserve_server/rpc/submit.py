"""Bridges a coroutine and the core: submit a request, await its answer, give it up when the caller goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from trtserve_protos import wire
from trtserve_server.errors import RequestError
from trtserve_server.models.registry import Registry
from trtserve_server.models.served_model import ServedModel
from trtserve_server.request import Complete, InferRequest, InferResponse, Outcome
from trtserve_server.rpc.infer_codec import request_from_message

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelInferRequest


class Submission:
    """A decoded inference request, from its bytes to the core."""

    __slots__ = ("message", "model", "raw_form", "request")

    def __init__(
        self,
        registry: Registry,
        data: bytes,
        complete: Complete,
        *,
        now: float,
        time_left_s: float | None,
        on_header: Callable[[ModelInferRequest], None] = lambda message: None,
    ) -> None:
        """Raises RequestError or ProtocolError; `on_header` is called before what can fail for its content."""
        self.message, raw = wire.decode_infer_request(data)
        on_header(self.message)
        self.raw_form = bool(raw)
        self.model: ServedModel = registry.find(self.message.model_name, self.message.model_version)
        self.request: InferRequest = request_from_message(
            self.message, raw, self.model, complete, now=now, time_left_s=time_left_s
        )

    def submit(self) -> None:
        """Hands the request to its model."""
        self.model.submit(self.request)

    def cancel(self) -> None:
        """Gives the request up."""
        self.model.cancel(self.request)


async def answered(registry: Registry, data: bytes, time_left_s: float | None) -> tuple[Submission, InferResponse]:
    """Submits the request in `data` and awaits its answer. Raises what the request is refused or failed with."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()

    def complete(outcome: Outcome) -> None:
        if not future.done():
            future.set_result(outcome)

    submission = Submission(registry, data, complete, now=monotonic(), time_left_s=time_left_s)
    submission.submit()
    try:
        outcome = await future
    except asyncio.CancelledError:
        submission.cancel()
        raise
    if isinstance(outcome, RequestError):
        raise outcome
    return submission, outcome
