"""trtserve.v1.RowInference: a batch of any size in one message, its rows back as they finish.

The batch is cut into pieces that fit the model, which share runs with everybody else's requests. No more pieces are
under way than the window holds (answers.py), so a slow reader holds the batch that it sent and a window of answers.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

import grpc

from trtserve_protos import row_inference, wire
from trtserve_server.config import ModelConfig
from trtserve_server.errors import InvalidRequest, RequestError
from trtserve_server.request import InferRequest, Outcome, held_bytes
from trtserve_server.rpc.answers import Answers, Lane, Place
from trtserve_server.rpc.call_wishes import call_wishes
from trtserve_server.rpc.handlers import Context, deadline_of, generic_handler
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.intake import Intake
from trtserve_server.scheduling.budget import ByteBudget


class RowInferenceService:
    """The calls of trtserve.v1.RowInference."""

    def __init__(self, codec: InferCodec, intake: Intake, budget: ByteBudget, max_window: int) -> None:
        self._codec = codec
        self._intake = intake
        self._budget = budget
        self._max_window = max_window

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for a grpc.aio server."""
        return generic_handler(
            row_inference.SERVICE, row_inference.METHODS, messages={}, server_streams={"InferRows": self.infer_rows}
        )

    async def infer_rows(self, data: bytes, context: Context) -> None:
        """Runs one batch, which counts whole until its last row is sent. Raises RequestError and ProtocolError."""
        self._intake.enter(context)
        call = RowCall(self._codec, context, data, self._max_window)
        self._budget.take(call.size_bytes, monotonic())
        try:
            await call.run()
        finally:
            self._budget.give(call.size_bytes)


class RowCall:
    """One batch, from its message to the answer for its last rows."""

    def __init__(self, codec: InferCodec, context: Context, data: bytes, max_window: int) -> None:
        options, batch = wire.decode_rows_request(data)
        parts = wire.split_infer_request(batch)
        self._codec = codec
        self._id = parts.id
        self._plan, self._inputs, self._rows = codec.decode_batch(parts)
        self._model = self._plan.model
        # Inputs are views of the message, or more than it where they are strings or came out of shared memory.
        self.size_bytes = max(len(data), held_bytes(self._inputs))
        self._step = options.rows_per_answer or self._model.max_batch_size
        if self._step > self._model.max_batch_size:
            raise InvalidRequest(
                f"rows_per_answer = {self._step}; model {self._model.name!r} takes at most"
                f" {self._model.max_batch_size} rows at once (max_batch_size)"
            )
        # No more than may wait: pieces must not be refused because of each other.
        window = min(options.window or max_window, max_window, _most_waiting(self._model.config))
        self._answers = Answers(context.write, window)
        self._lane = Lane()
        self._in_order = options.in_order
        self._in_flight: dict[Place, InferRequest] = {}
        self._wishes = call_wishes(context.invocation_metadata())
        self._deadline = deadline_of(context, monotonic())

    async def run(self) -> None:
        """Ends when all rows are written. Raises the RequestError of the first piece that fails."""
        self._model.hold()
        feeder = asyncio.get_running_loop().create_task(self._feed())
        try:
            await self._answers.write_all()
        finally:
            feeder.cancel()
            for request in tuple(self._in_flight.values()):
                self._model.cancel(request)
            self._model.release()
            self._lane.clear()
            self._answers.abandon()

    async def _feed(self) -> None:
        for first in range(0, self._rows, self._step):
            if self._answers.full:
                await self._answers.room()
            self._submit(first, min(self._step, self._rows - first))
        self._answers.close()

    def _submit(self, first: int, count: int) -> None:
        piece = {name: array[first : first + count] for name, array in self._inputs.items()}
        place = self._answers.take(self._lane if self._in_order else None)
        complete = partial(self._answer, place, first, count)
        request = self._codec.request(self._plan, self._id, piece, complete, monotonic(), self._deadline, 0)
        request.rows = count
        request.size_bytes = 0  # the batch that it is a view of is counted
        if not self._wishes.cache:
            request.cached_outputs = None
        self._in_flight[place] = request
        self._model.submit((request,))

    def _answer(self, place: Place, first: int, count: int, outcome: Outcome) -> None:
        del self._in_flight[place]
        try:
            if isinstance(outcome, RequestError):
                raise outcome
            pieces = self._codec.encode(self._plan, outcome, self._id, explained=self._wishes.timing)
            self._answers.put(place, wire.rows_response(first, count, pieces))
        except Exception as error:
            self._answers.put(place, error)


def _most_waiting(config: ModelConfig) -> int:
    """How many requests may wait for the model, whatever their priority."""
    levels = [level.max_queue_size for level in config.levels if level.max_queue_size]
    return min([config.batching.max_queue_size, *levels])
