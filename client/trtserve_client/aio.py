"""The asynchronous client: the twin of `client`, method for method, on grpc.aio. Lives in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from trtserve_client import operations, rows
from trtserve_client.aio_answers import Answers
from trtserve_client.aio_calls import Calls
from trtserve_client.aio_channel import errors_of_call, open_channel
from trtserve_client.aio_requests import Requests, StreamInputs, elements_of
from trtserve_client.channel import STREAM_PATH, UNARY_PATHS, ChannelOptions, TlsOptions
from trtserve_client.endpoint import CallMetadata, Endpoint, deadline_after, seconds_until
from trtserve_client.errors import StreamError
from trtserve_client.inputs import Inputs, Tensor, fit_inputs
from trtserve_client.ledger import StreamInput, StreamLedger
from trtserve_client.messages import Outputs, Parameters, stream_request
from trtserve_client.operations import Operation
from trtserve_client.result import Result
from trtserve_client.rows import Batch, Rows, rows_from_response

T = TypeVar("T")


class Client(Calls):
    """A connection to a server of the Open Inference Protocol, to be made and used in one running event loop.

    `url` is "host:port", "grpc://host:port", "grpcs://host:port" (TLS) or "unix:/path". `tls` holds certificates; True
    stands for the usual roots. `metadata` goes with every call. Nothing is connected before the first call.

    Every call takes `timeout_s` (seconds for the whole of it, None = no limit) and `metadata` (headers for it alone),
    and raises the subclass of ServerError that stands for the status it ended with.
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        tls: TlsOptions | bool | None = None,
        options: ChannelOptions | None = None,
        metadata: CallMetadata = (),
    ) -> None:
        self._endpoint = Endpoint(url, tls, options, metadata)
        self._channel = open_channel(self._endpoint)
        self._unary: dict[str, Callable[..., Awaitable[bytes]]] = {
            path: self._channel.unary_unary(path) for path in UNARY_PATHS
        }
        self._stream: Callable[..., Any] = self._channel.stream_stream(STREAM_PATH)
        self._rows: Callable[..., Any] = self._channel.unary_stream(rows.PATH)
        self._streams: set[Any] = set()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Outputs | None = None,
        id: str = "",
        parameters: Parameters | None = None,
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
        check: bool = True,
    ) -> Result:
        """Runs `model` on `inputs`: names to arrays of the model's types and shapes, batch dimension included.

        Lists and scalars take the model's type where no value changes by it. `outputs` names the wanted ones, all by
        default. `check` compares the inputs with the model's metadata first, which is fetched once; a model with
        optional inputs wants check=False. Raises InputError for inputs that do not fit.
        """
        deadline = deadline_after(timeout_s)
        arrays = await self._arrays(model, version, inputs, check=check, deadline=deadline, metadata=metadata)
        operation = operations.infer(model, arrays, version=version, outputs=outputs, id=id, parameters=parameters)
        return await self._run(operation, seconds_until(deadline), metadata)

    @overload
    def stream(
        self,
        model: str,
        inputs_iterable: StreamInputs,
        *,
        version: str = "",
        outputs: Outputs | None = None,
        parameters: Parameters | None = None,
        in_flight: int = 16,
        ordered: bool = True,
        errors: Literal["raise"] = "raise",
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
        check: bool = True,
    ) -> AsyncGenerator[Result, None]: ...

    @overload
    def stream(
        self,
        model: str,
        inputs_iterable: StreamInputs,
        *,
        version: str = "",
        outputs: Outputs | None = None,
        parameters: Parameters | None = None,
        in_flight: int = 16,
        ordered: bool = True,
        errors: Literal["return"],
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
        check: bool = True,
    ) -> AsyncGenerator[Result | StreamError, None]: ...

    def stream(
        self,
        model: str,
        inputs_iterable: StreamInputs,
        *,
        version: str = "",
        outputs: Outputs | None = None,
        parameters: Parameters | None = None,
        in_flight: int = 16,
        ordered: bool = True,
        errors: Literal["raise", "return"] = "raise",
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
        check: bool = True,
    ) -> AsyncGenerator[Result | StreamError, None]:
        """Runs `model` on each element of `inputs_iterable` over one call; gives one Result for each.

        An element is a mapping of inputs or (id, mapping); without an id its index is its id. At most `in_flight`
        requests are sent whose results were not taken, so a slow reader slows the iterable, which is read in a task
        of its own. Results come in the order of the elements, or as they are ready with ordered=False. A request that
        the server refuses raises StreamError in its place; errors="return" gives the error in place of the Result and
        goes on. What the iterable raises, or an InputError, comes after the results of the elements before it.
        Nothing is sent before the first result is asked for; leaving the generator ends the call (at once inside
        contextlib.aclosing, else as soon as the loop gets to it).
        """
        ledger = StreamLedger(model, in_flight=in_flight, ordered=ordered, errors=errors)

        async def encode(element: StreamInput) -> bytes:
            wire_id, inputs = ledger.enter(element)
            arrays = await self._arrays(model, version, inputs, check=check, deadline=None, metadata=metadata)
            return stream_request(model, arrays, version=version, outputs=outputs, id=wire_id, parameters=parameters)

        self._endpoint.check_usable()
        requests = Requests(elements_of(inputs_iterable), encode, ledger, in_flight)
        return self._exchange(ledger, requests, timeout_s, metadata)

    def infer_rows(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Outputs | None = None,
        id: str = "",
        parameters: Parameters | None = None,
        rows_per_answer: int = 0,
        window: int = 0,
        ordered: bool = True,
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
        check: bool = True,
    ) -> AsyncGenerator[Rows, None]:
        """Runs `model` on a batch of any size; gives its rows as they finish, each answer with the range that it holds.

        See the synchronous twin. Leaving the generator cancels the call.
        """
        self._endpoint.check_usable()
        batch = Batch(model, inputs, version, outputs, id, parameters, rows_per_answer, window, ordered)
        return self._exchange_rows(batch, timeout_s, metadata, check=check)

    async def close(self) -> None:
        """Ends the connection and the calls that run on it. May be called twice, and does nothing in a fork."""
        if self._endpoint.in_own_process and not self._endpoint.closed:
            self._endpoint.closed = True
            # Older versions of grpc.aio leave a stream running that nobody reads at this moment.
            for call in list(self._streams):
                call.cancel()
            await self._channel.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Client({self._endpoint.url!r})"

    async def _run(self, operation: Operation[T], timeout_s: float | None, metadata: CallMetadata | None) -> T:
        self._endpoint.check_usable()
        headers = self._endpoint.headers(metadata)
        with errors_of_call(self._endpoint, operation.model):
            response = await self._unary[operation.path](operation.request, timeout=timeout_s, metadata=headers)
        return operation.answer(response)

    async def _arrays(
        self,
        model: str,
        version: str,
        inputs: Inputs,
        *,
        check: bool,
        deadline: float | None,
        metadata: CallMetadata | None,
    ) -> dict[str, Tensor]:
        if (arrays := self._endpoint.fitted(model, version, inputs, check=check)) is not None:
            return arrays
        found = await self.model_metadata(model, version, timeout_s=seconds_until(deadline), metadata=metadata)
        return fit_inputs(found, inputs)

    async def _exchange(
        self, ledger: StreamLedger, requests: Requests, timeout_s: float | None, metadata: CallMetadata | None
    ) -> AsyncGenerator[Result | StreamError, None]:
        call = self._stream(timeout=timeout_s, metadata=self._endpoint.headers(metadata))
        answers = Answers(call)
        self._streams.add(call)
        sender = asyncio.create_task(requests.write_to(call))
        try:
            while (message := await self._received(answers, ledger.model)) is not None:
                for outcome in ledger.settle(message):
                    requests.free_place()
                    if isinstance(outcome, StreamError):
                        self._endpoint.forget(ledger.model)
                    yield ledger.handed_out(outcome)
            ledger.finish()
        finally:
            self._streams.discard(call)
            sender.cancel()
            call.cancel()
            await asyncio.wait([sender])

    async def _exchange_rows(
        self, batch: Batch, timeout_s: float | None, metadata: CallMetadata | None, *, check: bool
    ) -> AsyncGenerator[Rows, None]:
        deadline = deadline_after(timeout_s)
        arrays = await self._arrays(
            batch.model, batch.version, batch.inputs, check=check, deadline=deadline, metadata=metadata
        )
        headers = self._endpoint.headers(metadata)
        call = self._rows(batch.request(arrays), timeout=seconds_until(deadline), metadata=headers)
        answers = Answers(call)
        self._streams.add(call)
        try:
            while (message := await self._received(answers, batch.model)) is not None:
                yield rows_from_response(message)
        finally:
            self._streams.discard(call)
            call.cancel()

    async def _received(self, answers: Answers, model: str) -> bytes | None:
        with errors_of_call(self._endpoint, model):
            return await answers.next()
