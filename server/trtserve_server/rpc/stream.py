"""ModelStreamInfer: many requests in flight on one stream, answered as they complete or in order, errors inside it.

A message is received only while a place of the stream's window is free (answers.py), so a client that does not read
its answers is not read from either.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from trtserve_protos import oip, wire
from trtserve_server.errors import RequestError, ServerStopping
from trtserve_server.request import InferRequest, Outcome
from trtserve_server.rpc.answers import Answers, Lane, Place
from trtserve_server.rpc.call_wishes import call_wishes
from trtserve_server.rpc.custom_parameters import FINAL_RESPONSE
from trtserve_server.rpc.handlers import deadline_of, finish
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.infer_plan import InferPlan
from trtserve_server.rpc.status import status_of
from trtserve_server.transport.call import Call

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
    """One stream, which `begin` begins; `on_end` is called with it when it has ended, whoever ended it.

    Raises InvalidRequest for metadata that says nothing.
    """

    def __init__(self, codec: InferCodec, call: Call, window: int, on_end: Callable[[InferStream], None]) -> None:
        self._codec = codec
        self._call = call
        self._on_end = on_end
        self._answers = Answers(call, window, self._receive, self._end)
        self._in_flight: set[_Flight] = set()
        self._is_receiving = False
        self._is_half_closed = False
        self._is_stopping = False
        self._deadline = deadline_of(call, monotonic())
        self._errors_as_status = (ERRORS_AS_STATUS, "true") in call.metadata
        self._wishes = call_wishes(call.metadata)
        self._ordered = self._wishes.preserve_ordering
        self._lane = Lane()  # of the whole stream
        self._model_lanes: dict[str, Lane] = {}

    @property
    def held(self) -> int:
        """Requests that were received and whose answers are not sent."""
        return self._answers.held

    def begin(self) -> None:
        """Serves the stream until the client has half-closed and every request is answered."""
        self._call.on_cancel = self._clear
        self._receive()

    def stop(self) -> None:
        """Receives nothing more; the stream ends with UNAVAILABLE once what was received is answered.

        A stream whose client has sent all that it will ends as it would anyway.
        """
        if not self._is_half_closed:
            self._is_stopping = True
            self._answers.close()

    def _receive(self) -> None:
        if not (self._is_receiving or self._is_half_closed or self._is_stopping or self._answers.full):
            self._is_receiving = True
            self._call.receive(self._received)

    def _received(self, message: bytes | None) -> None:
        self._is_receiving = False
        if self._call.is_over or self._is_stopping:
            return
        if message is None:
            self._is_half_closed = True
            self._answers.close()
            return
        self._take(message)
        self._receive()

    def _take(self, data: bytes) -> None:
        """Submits one request; its answer, or why there is none, is queued for sending."""
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
        flight.plan.model.submit((flight.request,))

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

    def _end(self, error: Exception | None) -> None:
        if error is None and self._is_stopping:
            error = ServerStopping(
                "the server is stopping; requests without an answer were not run, send them elsewhere"
            )
        finish(self._call, error)
        self._clear()

    def _clear(self) -> None:
        """Gives up what is under way, for the call is over."""
        self._answers.abandon()
        for flight in tuple(self._in_flight):
            flight.plan.model.cancel(flight.request)
        for lane in (self._lane, *self._model_lanes.values()):
            lane.clear()
        self._on_end(self)
