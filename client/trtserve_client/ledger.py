"""The requests of one stream that wait for their answers: ids, order, errors. Pure; knows no channel and no loop.

One thread or task enters requests, one settles answers; the wire carries ids of our own, so callers' may repeat.
"""

from __future__ import annotations

from collections.abc import Mapping

from trtserve_client.errors import BadResponse, ClientError, InputError, StreamError
from trtserve_client.inputs import Inputs
from trtserve_client.messages import result_from_response
from trtserve_client.result import Result
from trtserve_protos import wire
from trtserve_protos.errors import WireError

StreamInput = Inputs | tuple[str, Inputs]
"""One request of a stream: its inputs, or its id and its inputs. Without an id it is known by its index, from "0"."""


class StreamLedger:
    """What was asked and not answered yet on one stream to `model`.

    Raises ClientError for `in_flight` below 1 or an unknown word in `errors`.
    """

    def __init__(self, model: str, *, in_flight: int, ordered: bool, errors: str) -> None:
        if in_flight < 1:
            raise ClientError(f"in_flight={in_flight} given, at least 1 wanted")
        if errors not in ("raise", "return"):
            raise ClientError(f'errors={errors!r} given, "raise" or "return" wanted')
        self.model = model
        self.complete = False
        """Whether the caller's iterable came to its end."""
        self._ordered = ordered
        self._raises = errors == "raise"
        self._failure: BaseException | None = None
        self._entered = 0
        self._latest_id = ""
        self._waiting: dict[str, tuple[int, str]] = {}
        self._due = 0
        self._early: dict[int, Result | StreamError] = {}

    def enter(self, element: StreamInput) -> tuple[str, Inputs]:
        """Takes in one element of the caller's iterable; gives the id for the wire, and the inputs."""
        number = self._entered
        if isinstance(element, Mapping):
            id, inputs, wire_id = str(number), element, str(number)
        else:
            id, inputs = _pair(element, number)
            wire_id = f"{number}:{id}"
        self._entered = number + 1
        self._latest_id = id
        self._waiting[wire_id] = (number, id)
        return wire_id, inputs

    def fail(self, error: BaseException) -> None:
        """Notes what ended the caller's iterable, or made its latest element unfit; `finish` raises it."""
        if isinstance(error, InputError):
            named = InputError(f"request {self._latest_id!r}: {error}")
            named.__cause__ = error
            error = named
        self._failure = error

    def settle(self, message: bytes) -> list[Result | StreamError]:
        """Takes in one answer; gives those that are due now. Raises StreamError for one that no request waits for."""
        try:
            error, response = wire.decode_stream_response(message)
        except WireError as problem:
            raise BadResponse(f"an answer of the stream cannot be read: {problem}") from problem
        result = result_from_response(response)
        number, id = self._claimed(result.id, error)
        result.id = id
        outcome = self._error(error, id) if error else result
        if not self._ordered:
            return [outcome]
        self._early[number] = outcome
        due = []
        while self._due in self._early:
            due.append(self._early.pop(self._due))
            self._due += 1
        return due

    def handed_out(self, outcome: Result | StreamError) -> Result | StreamError:
        """The outcome as the caller wants it: an error is raised, or returned where `errors` says so."""
        if self._raises and isinstance(outcome, StreamError):
            raise outcome
        return outcome

    def finish(self) -> None:
        """To be called after the server's last answer: raises what went wrong before it, if anything did."""
        if self._failure is not None:
            raise self._failure
        if self._waiting:
            id = next(iter(self._waiting.values()))[1]
            raise self._error(f"the server ended it with {len(self._waiting)} requests unanswered, the first is", id)
        if not self.complete:
            raise self._error("the server ended it before the inputs came to their end", "")

    def _claimed(self, wire_id: str, error: str) -> tuple[int, str]:
        """The number and the caller's id of the request that an answer belongs to."""
        if not wire_id and error and len(self._waiting) == 1:
            return self._waiting.popitem()[1]
        try:
            return self._waiting.pop(wire_id)
        except KeyError:
            problem = error or f"the server answered with id {wire_id!r}, which no request waits for"
            raise self._error(problem, "") from None

    def _error(self, problem: str, id: str) -> StreamError:
        which = f" request {id!r}" if id else ""
        return StreamError(f"stream to model {self.model!r}{which}: {problem}", request_id=id, details=problem)


def _pair(element: object, number: int) -> tuple[str, Inputs]:
    match element:
        case (str() as id, Mapping() as inputs):
            return id, inputs
    raise InputError(
        f"element {number} of the stream: {type(element).__name__} given, a mapping of inputs or (id, mapping) wanted"
    )
