"""The synchronous client: a thin shell that moves the bytes which `operations` and `ledger` make and read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from traceback import clear_frames
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import grpc

from trtserve_client import operations, rows
from trtserve_client.calls import Calls
from trtserve_client.channel import STREAM_PATH, UNARY_PATHS, ChannelOptions, TlsOptions
from trtserve_client.endpoint import CallMetadata, Endpoint, deadline_after, seconds_until
from trtserve_client.errors import StreamError
from trtserve_client.inputs import Inputs, Tensor, fit_inputs
from trtserve_client.ledger import StreamInput, StreamLedger
from trtserve_client.messages import Outputs, Parameters, stream_request
from trtserve_client.operations import Operation
from trtserve_client.result import Result
from trtserve_client.rows import Batch, Rows, rows_from_response
from trtserve_client.stream_requests import Requests

T = TypeVar("T")


class Client(Calls):
    """A connection to a server of the Open Inference Protocol. Any number of threads may share it, a fork may not.

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
        self._channel = _open_channel(self._endpoint)
        self._unary: dict[str, Callable[..., bytes]] = {path: self._channel.unary_unary(path) for path in UNARY_PATHS}
        self._stream: Callable[..., Any] = self._channel.stream_stream(STREAM_PATH)
        self._rows: Callable[..., Any] = self._channel.unary_stream(rows.PATH)

    def infer(
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
        arrays = self._arrays(model, version, inputs, check=check, deadline=deadline, metadata=metadata)
        operation = operations.infer(model, arrays, version=version, outputs=outputs, id=id, parameters=parameters)
        return self._run(operation, seconds_until(deadline), metadata)

    @overload
    def stream(
        self,
        model: str,
        inputs_iterable: Iterable[StreamInput],
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
    ) -> Generator[Result, None, None]: ...

    @overload
    def stream(
        self,
        model: str,
        inputs_iterable: Iterable[StreamInput],
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
    ) -> Generator[Result | StreamError, None, None]: ...

    def stream(
        self,
        model: str,
        inputs_iterable: Iterable[StreamInput],
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
    ) -> Generator[Result | StreamError, None, None]:
        """Runs `model` on each element of `inputs_iterable` over one call; gives one Result for each.

        An element is a mapping of inputs or (id, mapping); without an id its index is its id. At most `in_flight`
        requests are sent whose results were not taken, so a slow reader slows the iterable, which is read in a thread
        of its own. Results come in the order of the elements, or as they are ready with ordered=False. A request that
        the server refuses raises StreamError in its place; errors="return" gives the error in place of the Result and
        goes on. What the iterable raises, or an InputError, comes after the results of the elements before it.
        Nothing is sent before the first result is asked for; leaving the generator ends the call.
        """
        ledger = StreamLedger(model, in_flight=in_flight, ordered=ordered, errors=errors)

        def encode(element: StreamInput) -> bytes:
            wire_id, inputs = ledger.enter(element)
            arrays = self._arrays(model, version, inputs, check=check, deadline=None, metadata=metadata)
            return stream_request(model, arrays, version=version, outputs=outputs, id=wire_id, parameters=parameters)

        self._endpoint.check_usable()
        requests = Requests(iter(inputs_iterable), encode, ledger, in_flight)
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
    ) -> Generator[Rows, None, None]:
        """Runs `model` on a batch of any size; gives its rows as they finish, each answer with the range that it holds.

        An answer has `rows_per_answer` rows, the model's largest batch by default; at most `window` answers are under
        way at once, by default and at most the server's number. They come in the order of the rows, or as they are
        ready with ordered=False. The first failure is raised and ends the call; leaving the generator cancels it. Else
        as `infer`. Nothing is sent before the first answer is asked for. A call of trtserve; other servers lack it.
        """
        self._endpoint.check_usable()
        batch = Batch(model, inputs, version, outputs, id, parameters, rows_per_answer, window, ordered)
        return self._exchange_rows(batch, timeout_s, metadata, check=check)

    def close(self) -> None:
        """Ends the connection and the calls that run on it. May be called twice, and does nothing in a fork."""
        if self._endpoint.in_own_process and not self._endpoint.closed:
            self._endpoint.closed = True
            self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._endpoint.url!r})"

    def _run(self, operation: Operation[T], timeout_s: float | None, metadata: CallMetadata | None) -> T:
        self._endpoint.check_usable()
        headers = self._endpoint.headers(metadata)
        try:
            with self._endpoint.errors_of_call(operation.model):
                response = self._unary[operation.path](operation.request, timeout=timeout_s, metadata=headers)
        except KeyboardInterrupt as interrupt:
            # gRPC ends the call when its frame lets go of it, and who keeps the traceback keeps the frame. An interrupt
            # before the call waits can still leave it running, until close() at the latest.
            clear_frames(interrupt.__traceback__)
            raise
        return operation.answer(response)

    def _arrays(
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
        found = self.model_metadata(model, version, timeout_s=seconds_until(deadline), metadata=metadata)
        return fit_inputs(found, inputs)

    def _exchange(
        self, ledger: StreamLedger, requests: Requests, timeout_s: float | None, metadata: CallMetadata | None
    ) -> Generator[Result | StreamError, None, None]:
        call = self._stream(requests, timeout=timeout_s, metadata=self._endpoint.headers(metadata))
        try:
            for message in self._received(call, ledger.model):
                for outcome in ledger.settle(message):
                    requests.free_place()
                    if isinstance(outcome, StreamError):
                        self._endpoint.forget(ledger.model)
                    yield ledger.handed_out(outcome)
            ledger.finish()
        finally:
            requests.close()
            call.cancel()

    def _exchange_rows(
        self, batch: Batch, timeout_s: float | None, metadata: CallMetadata | None, *, check: bool
    ) -> Generator[Rows, None, None]:
        deadline = deadline_after(timeout_s)
        arrays = self._arrays(
            batch.model, batch.version, batch.inputs, check=check, deadline=deadline, metadata=metadata
        )
        headers = self._endpoint.headers(metadata)
        call = self._rows(batch.request(arrays), timeout=seconds_until(deadline), metadata=headers)
        try:
            for message in self._received(call, batch.model):
                yield rows_from_response(message)
        finally:
            call.cancel()

    def _received(self, call: Iterator[bytes], model: str) -> Iterator[bytes]:
        with self._endpoint.errors_of_call(model):
            yield from call


def _open_channel(endpoint: Endpoint) -> grpc.Channel:
    arguments = endpoint.options.channel_arguments(endpoint.target)
    if endpoint.tls is None:
        return grpc.insecure_channel(endpoint.target, arguments, endpoint.options.compression)
    return grpc.secure_channel(endpoint.target, endpoint.tls.credentials(), arguments, endpoint.options.compression)
