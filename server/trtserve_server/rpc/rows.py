"""trtserve.v1.RowInference: a batch of any size in one message, its rows back as they finish.

The batch is cut into pieces that fit the model, which share runs with everybody else's requests. No more pieces are
under way than the window holds (answers.py), so a slow reader holds the batch that it sent and a window of answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic

from trtserve_protos import row_inference, wire
from trtserve_server.config import ModelConfig
from trtserve_server.errors import InvalidRequest, RequestError
from trtserve_server.request import InferRequest, Outcome, held_bytes
from trtserve_server.rpc.answers import Answers, Lane, Place
from trtserve_server.rpc.call_wishes import call_wishes
from trtserve_server.rpc.handlers import deadline_of, finish, handlers_of
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.intake import Intake
from trtserve_server.scheduling.budget import ByteBudget
from trtserve_server.transport.call import Call, Handlers


class RowInferenceService:
    """The calls of trtserve.v1.RowInference."""

    def __init__(self, codec: InferCodec, intake: Intake, budget: ByteBudget, max_window: int) -> None:
        self._codec = codec
        self._intake = intake
        self._budget = budget
        self._max_window = max_window

    def handlers(self) -> Handlers:
        """By their paths."""
        return handlers_of(row_inference.METHODS, messages={}, raw={"InferRows": self.infer_rows})

    def infer_rows(self, data: bytes, call: Call) -> None:
        """Runs one batch, which counts whole until its last row is sent. Raises RequestError and ProtocolError."""
        self._intake.enter(call)
        rows = RowCall(self._codec, call, data, self._max_window)
        self._budget.take(rows.size_bytes, monotonic())
        rows.begin(partial(self._budget.give, rows.size_bytes))


class RowCall:
    """One batch, from its message to the answer for its last rows."""

    def __init__(self, codec: InferCodec, call: Call, data: bytes, max_window: int) -> None:
        options, batch = wire.decode_rows_request(data)
        parts = wire.split_infer_request(batch)
        self._codec = codec
        self._call = call
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
        most = _most_waiting(self._model.config, self._share_of(min(self._step, self._rows)))
        window = min(options.window or max_window, max_window, most)
        self._answers = Answers(call, window, self._feed, self._end)
        self._next = 0  # the first row that is not submitted
        self._lane = Lane()
        self._in_order = options.in_order
        self._in_flight: dict[Place, InferRequest] = {}
        self._wishes = call_wishes(call.metadata)
        self._deadline = deadline_of(call, monotonic())

    def begin(self, on_end: Callable[[], None]) -> None:
        """Answers the call row by row, or with the RequestError of the first piece that fails; then calls `on_end`."""
        self._on_end = on_end
        self._call.on_cancel = self._clear
        self._model.hold()
        self._feed()

    def _feed(self) -> None:
        while self._next < self._rows and not self._answers.full:
            first = self._next
            count = min(self._step, self._rows - first)
            self._next += count
            self._submit(first, count)
        if self._next == self._rows:
            self._answers.close()

    def _end(self, error: Exception | None) -> None:
        finish(self._call, error)
        self._clear()

    def _clear(self) -> None:
        """Gives up what is under way, for the call is over."""
        self._answers.abandon()
        self._next = self._rows
        for request in tuple(self._in_flight.values()):
            self._model.cancel(request)
        self._model.release()
        self._lane.clear()
        self._on_end()

    def _submit(self, first: int, count: int) -> None:
        piece = {name: array[first : first + count] for name, array in self._inputs.items()}
        place = self._answers.take(self._lane if self._in_order else None)
        complete = partial(self._answer, place, first, count)
        request = self._codec.request(self._plan, self._id, piece, complete, monotonic(), self._deadline, 0)
        request.rows = count
        request.size_bytes = 0  # the batch that it is a view of is counted
        request.shared_bytes = self._share_of(count)
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

    def _share_of(self, rows: int) -> int:
        """The part of the batch's bytes that so many of its rows have; rows of strings count as if all were alike."""
        return max(1, self.size_bytes * rows // self._rows)


def _most_waiting(config: ModelConfig, size: int) -> int:
    """How many requests of `size` bytes may wait for the model, whatever their priority. One always may."""
    levels = [level.max_queue_size for level in config.levels if level.max_queue_size]
    return min([config.batching.max_queue_size, max(1, config.batching.max_queue_bytes // size), *levels])
