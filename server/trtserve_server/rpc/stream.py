"""ModelStreamInfer: many requests in flight on one stream, answered as they complete or in order, errors inside it.

The stream is read again only while a place of its window is free (answers.py), so a client that does not read its
answers is not read from either.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import grpc.aio

from trtserve_protos import oip, wire
from trtserve_server.errors import RequestError, ServerStopping
from trtserve_server.models.model import Model
from trtserve_server.request import InferRequest, Outcome
from trtserve_server.rpc.answers import Answers, Lane, Place
from trtserve_server.rpc.call_wishes import call_wishes
from trtserve_server.rpc.custom_parameters import FINAL_RESPONSE
from trtserve_server.rpc.handlers import Context, deadline_of
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.infer_plan import InferPlan
from trtserve_server.rpc.status import status_of

ERRORS_AS_STATUS = "triton_grpc_error"
"""Metadata key of Triton's: "true" turns the first error into the stream's status."""


class _Flight:
    """A request of a stream between its arrival and its answer."""

    __slots__ = ("_stream", "id", "place", "plan", "request")

    plan: InferPlan
    request: InferRequest
    place: Place

    def __init__(self, stream: InferStream, request_id: str) -> None:
        self._stream = stream
        self.id = request_id

    def complete(self, outcome: Outcome) -> None:
        self._stream._answer(self, outcome)


class InferStream:
    """One stream, from its first read to its last write. Raises InvalidRequest for metadata that says nothing."""

    def __init__(self, codec: InferCodec, context: Context, window: int) -> None:
        self._codec = codec
        self._context = context
        self._answers = Answers(context.write, window)
        self._in_flight: set[_Flight] = set()
        self._reader: asyncio.Task[None] | None = None
        self._ended = False
        self._deadline = deadline_of(context, monotonic())
        metadata = context.invocation_metadata() or ()
        self._errors_as_status = (ERRORS_AS_STATUS, "true") in metadata
        self._wishes = call_wishes(metadata)
        self._ordered = self._wishes.preserve_ordering
        self._lane = Lane()  # of the whole stream
        self._model_lanes: dict[str, Lane] = {}
        self._later: dict[Model, list[InferRequest]] = {}
        self._answers.on_last = self._submit_later

    @property
    def held(self) -> int:
        """Requests that were read and whose answers are not written."""
        return self._answers.held

    async def run(self) -> None:
        """Serves the stream until the client has half-closed and every request is answered."""
        self._reader = reader = asyncio.get_running_loop().create_task(self._read())
        # Not at the end of _read: a task that is cancelled before its first step never comes there.
        reader.add_done_callback(lambda _: self._answers.close())
        try:
            await self._answers.write_all()
            if self._ended:
                raise ServerStopping(
                    "the server is stopping; requests without an answer were not run, send them elsewhere"
                )
            await reader
        finally:
            reader.cancel()
            self._reader = None
            for flight in tuple(self._in_flight):
                flight.plan.model.cancel(flight.request)
            for model in self._later:
                model.release()
            for lane in (self._lane, *self._model_lanes.values()):
                lane.clear()
            self._answers.abandon()

    def end(self) -> None:
        """Reads nothing more; the stream ends with UNAVAILABLE once what was read is answered.

        A stream whose client has sent all that it will ends as it would anyway.
        """
        if self._reader is not None and not self._reader.done():
            self._ended = True
            self._reader.cancel()

    async def _read(self) -> None:
        answers, read = self._answers, self._context.read
        while True:
            if answers.full:
                await answers.room()
            data = await read()
            if data is grpc.aio.EOF:
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Submits one request; its answer, or why there is none, is queued for writing."""
        flight = _Flight(self, "")
        try:
            parts = self._codec.split(data)
            flight.id = parts.id
            flight.plan, flight.request = self._codec.decode(
                parts, flight.complete, monotonic(), self._deadline, len(data)
            )
        except Exception as error:
            flight.place = self._answers.take(self._lane if self._ordered else None)
            self._fail(flight, error)
            return
        if not self._wishes.cache:
            flight.request.cached_outputs = None
        flight.place = self._answers.take(self._lane_of(flight.plan))
        self._in_flight.add(flight)
        model = flight.plan.model
        if model.inline and self._answers.more:
            self._put_off(model, flight.request)
        else:
            model.submit((flight.request,))

    def _put_off(self, model: Model, request: InferRequest) -> None:
        """Keeps a request until the answers before it are written: its own could not leave sooner anyway.

        Such requests run in one batch. A model with a thread could compute meanwhile, so it gets them at once.
        """
        if model not in self._later:
            self._later[model] = []
            model.hold()
        self._later[model].append(request)

    def _submit_later(self) -> None:
        later, self._later = self._later, {}
        for model, requests in later.items():
            model.submit(requests)
            model.release()

    def _lane_of(self, plan: InferPlan) -> Lane | None:
        """Where the answer has to stand in line, if anywhere."""
        if self._ordered is not None:
            return self._lane if self._ordered else None
        if not plan.model.preserve_ordering:
            return None
        return self._model_lanes.setdefault(plan.model.name, Lane())

    def _answer(self, flight: _Flight, outcome: Outcome) -> None:
        self._in_flight.discard(flight)
        try:
            if isinstance(outcome, RequestError):
                raise outcome
            pieces = self._codec.encode(flight.plan, outcome, flight.id, explained=self._wishes.timing)
            self._answers.put(flight.place, wire.stream_response([*pieces, FINAL_RESPONSE]))
        except Exception as error:
            self._fail(flight, error)

    def _fail(self, flight: _Flight, error: Exception) -> None:
        if self._errors_as_status:
            self._answers.put(flight.place, error)
            return
        _, details = status_of(error)
        response = oip.ModelStreamInferResponse(error_message=details)
        response.infer_response.MergeFromString(FINAL_RESPONSE)
        response.infer_response.id = flight.id
        self._answers.put(flight.place, response.SerializeToString())
