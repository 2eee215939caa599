"""ModelStreamInfer: many requests in flight on one stream, answered as they complete, errors inside the stream.

A bounded window: the stream is read again only when an answer has been written, so a client that does not read its
answers is not read from either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from trtserve_protos import oip, wire
from trtserve_server.errors import RequestError, ServerStopping
from trtserve_server.models.registry import Registry
from trtserve_server.request import Outcome
from trtserve_server.rpc.handlers import Context
from trtserve_server.rpc.infer_codec import response_parts
from trtserve_server.rpc.status import status_of
from trtserve_server.rpc.submit import Submission

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelInferRequest

ERRORS_AS_STATUS = "triton_grpc_error"
"""Metadata key of Triton's: "true" turns the first error into the stream's status."""


class InferStream:
    """One stream, from its first read to its last write."""

    def __init__(self, registry: Registry, context: Context, window: int) -> None:
        self._registry = registry
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(window)
        self._answers: deque[bytes | Exception] = deque()
        self._answer_ready = asyncio.Event()
        self._in_flight: set[Submission] = set()
        self._reading = True
        self._ended = False
        metadata = dict(context.invocation_metadata() or ())
        self._errors_as_status = metadata.get(ERRORS_AS_STATUS) == "true"

    async def run(self) -> None:
        """Serves the stream until the client has half-closed and every request is answered."""
        self._reader = self._loop.create_task(self._read())
        try:
            await self._write()
            if self._ended:
                raise ServerStopping("the server is stopping; what was sent is answered, send the rest elsewhere")
            await self._reader
        finally:
            self._reader.cancel()
            for submission in tuple(self._in_flight):
                submission.cancel()

    def end(self) -> None:
        """Reads nothing more; the stream ends with UNAVAILABLE once what is in flight is answered."""
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
        header: list[ModelInferRequest] = []
        submission: Submission | None = None

        def complete(outcome: Outcome) -> None:
            assert submission is not None
            self._in_flight.discard(submission)
            self._answer(submission, outcome)

        try:
            submission = Submission(
                self._registry,
                data,
                complete,
                now=monotonic(),
                time_left_s=self._context.time_remaining(),
                on_header=header.append,
            )
            self._in_flight.add(submission)
            submission.submit()
        except Exception as error:
            if submission is not None:
                self._in_flight.discard(submission)
            self._fail(error, header[0].id if header else "")

    def _answer(self, submission: Submission, outcome: Outcome) -> None:
        if isinstance(outcome, RequestError):
            self._fail(outcome, submission.message.id)
            return
        try:
            header, raw = response_parts(submission.message, submission.raw_form, submission.model, outcome)
            self._queue(wire.encode_stream_response(header, raw))
        except Exception as error:
            self._fail(error, submission.message.id)

    def _fail(self, error: Exception, request_id: str) -> None:
        if self._errors_as_status:
            self._queue(error)
            return
        _, details = status_of(error)
        response = oip.ModelStreamInferResponse(error_message=details)
        response.infer_response.id = request_id
        self._queue(response.SerializeToString())

    def _queue(self, answer: bytes | Exception) -> None:
        self._answers.append(answer)
        self._answer_ready.set()
