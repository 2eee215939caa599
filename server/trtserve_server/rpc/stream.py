"""ModelStreamInfer: many requests in flight on one stream, answered as they complete, errors inside the stream.

A bounded window: the stream is read again only when an answer has been written, so a client that does not read its
answers is not read from either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

import grpc.aio

from trtserve_protos import oip, wire
from trtserve_server.errors import RequestError, ServerStopping
from trtserve_server.request import InferRequest, Outcome
from trtserve_server.rpc.custom_parameters import FINAL_RESPONSE
from trtserve_server.rpc.handlers import Context
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.infer_plan import InferPlan
from trtserve_server.rpc.status import status_of

ERRORS_AS_STATUS = "triton_grpc_error"
"""Metadata key of Triton's: "true" turns the first error into the stream's status."""


class _Flight:
    """A request of a stream between its arrival and its answer."""

    __slots__ = ("_stream", "id", "plan", "request")

    plan: InferPlan
    request: InferRequest

    def __init__(self, stream: InferStream, request_id: str) -> None:
        self._stream = stream
        self.id = request_id

    def complete(self, outcome: Outcome) -> None:
        self._stream._answer(self, outcome)


class InferStream:
    """One stream, from its first read to its last write."""

    def __init__(self, codec: InferCodec, context: Context, window: int) -> None:
        self._codec = codec
        self._context = context
        self._slots = asyncio.Semaphore(window)
        self._answers: deque[bytes | Exception] = deque()
        self._answer_ready = asyncio.Event()
        self._in_flight: set[_Flight] = set()
        self._reading = True
        self._ended = False
        metadata = dict(context.invocation_metadata() or ())
        self._errors_as_status = metadata.get(ERRORS_AS_STATUS) == "true"

    async def run(self) -> None:
        """Serves the stream until the client has half-closed and every request is answered."""
        self._reader = asyncio.get_running_loop().create_task(self._read())
        try:
            await self._write()
            if self._ended:
                raise ServerStopping(
                    "the server is stopping; requests without an answer were not run, send them elsewhere"
                )
            await self._reader
        finally:
            self._reader.cancel()
            for flight in tuple(self._in_flight):
                flight.plan.model.cancel(flight.request)

    def end(self) -> None:
        """Reads nothing more; the stream ends with UNAVAILABLE once what was read is answered.

        A stream whose client has sent all that it will ends as it would anyway.
        """
        if not self._reader.done():
            self._ended = True
            self._reader.cancel()

    async def _read(self) -> None:
        try:
            while True:
                await self._slots.acquire()
                data = await self._context.read()
                if data is grpc.aio.EOF:
                    return
                self._take(data)
        finally:
            self._reading = False
            self._answer_ready.set()

    async def _write(self) -> None:
        while self._reading or self._in_flight or self._answers:
            while self._answers:
                answer = self._answers.popleft()
                if isinstance(answer, Exception):
                    code, details = status_of(answer)
                    await self._context.abort(code, details)
                else:
                    await self._context.write(answer)
                    self._slots.release()
            self._answer_ready.clear()
            if self._reading or self._in_flight:
                await self._answer_ready.wait()

    def _take(self, data: bytes) -> None:
        """Submits one request; its answer, or why there is none, is queued for writing."""
        request_id = ""
        try:
            parts = wire.split_infer_request(data)
            request_id = parts.id
            flight = _Flight(self, request_id)
            flight.plan, flight.request = self._codec.decode(
                parts, flight.complete, monotonic(), self._context.time_remaining(), len(data)
            )
        except Exception as error:
            self._fail(error, request_id)
            return
        self._in_flight.add(flight)
        flight.plan.model.submit(flight.request)

    def _answer(self, flight: _Flight, outcome: Outcome) -> None:
        self._in_flight.discard(flight)
        try:
            if isinstance(outcome, RequestError):
                raise outcome
            pieces = self._codec.encode(flight.plan, outcome, flight.id)
            self._queue(wire.stream_response([*pieces, FINAL_RESPONSE]))
        except Exception as error:
            self._fail(error, flight.id)

    def _fail(self, error: Exception, request_id: str) -> None:
        if self._errors_as_status:
            self._queue(error)
            return
        _, details = status_of(error)
        response = oip.ModelStreamInferResponse(error_message=details)
        response.infer_response.MergeFromString(FINAL_RESPONSE)
        response.infer_response.id = request_id
        self._queue(response.SerializeToString())

    def _queue(self, answer: bytes | Exception) -> None:
        self._answers.append(answer)
        self._answer_ready.set()
