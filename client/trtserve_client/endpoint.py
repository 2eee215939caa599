"""What both clients keep beside their channel: the place, this process, standing metadata, the models' metadata.

It knows the rules of use (not after close, not after fork) and turns gRPC's errors into ours; it makes no call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import grpc

from trtserve_client.channel import ChannelOptions, TlsOptions, target_from_url, tls_options
from trtserve_client.errors import (
    ClientError,
    ClosedClientError,
    ForkedClientError,
    InputError,
    InvalidRequest,
    NotFound,
    error_from_status,
)
from trtserve_client.inputs import Inputs, Tensor, arrays_from_inputs, fit_inputs
from trtserve_client.metadata import ModelMetadata

CallMetadata = Mapping[str, str | bytes] | Sequence[tuple[str, str | bytes]]
"""Headers of a call, as a mapping or as pairs; gRPC wants their names in lower case, and so they are sent."""


_HEADER_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


class Endpoint:
    """One client's place, rules of use and memory. Any thread may use it."""

    def __init__(
        self, url: str, tls: TlsOptions | bool | None, options: ChannelOptions | None, metadata: CallMetadata
    ) -> None:
        self.url = url
        self.target, asked = target_from_url(url)
        self.tls = tls_options(tls, asked)
        self.options = options or ChannelOptions()
        self.known: dict[tuple[str, str], ModelMetadata] = {}
        self.closed = False
        self._metadata = _pairs(metadata)
        self._process = os.getpid()

    @property
    def in_own_process(self) -> bool:
        """Whether this is the process that made the client."""
        return os.getpid() == self._process

    def check_usable(self) -> None:
        """Raises ForkedClientError or ClosedClientError where the channel must not be touched."""
        if not self.in_own_process:
            raise ForkedClientError(
                f"this client was made in process {self._process} and is used in its fork {os.getpid()}; gRPC's "
                "connections and threads do not survive a fork: make a client in each process after it was started"
            )
        if self.closed:
            raise self.closed_error()

    def closed_error(self) -> ClosedClientError:
        """The error for a call on a closed client."""
        return ClosedClientError(f"the client of {self.url} is closed; make a new one")

    def headers(self, metadata: CallMetadata | None) -> tuple[tuple[str, str | bytes], ...]:
        """The client's standing metadata and that of one call."""
        return self._metadata + _pairs(metadata) if metadata else self._metadata

    @contextmanager
    def errors_of_call(self, model: str) -> Iterator[None]:
        """Turns what gRPC raises for a call about `model` into a ClientError."""
        try:
            yield
        except (grpc.RpcError, grpc.aio.UsageError, ValueError) as error:
            # The last two come from a channel that another thread or task has just closed.
            raise self._error_from_call(error, model) from error

    def fitted(self, model: str, version: str, inputs: Inputs, *, check: bool) -> dict[str, Tensor] | None:
        """The arrays to be sent; None where the model's metadata has to be fetched first, to check them against it."""
        if not check:
            return arrays_from_inputs(inputs)
        if (known := self.known.get((model, version))) is not None:
            # Unfit for what was known may be fit for what was loaded since, so only a fresh look may raise.
            with suppress(InputError):
                return fit_inputs(known, inputs)
        return None

    def forget(self, model: str) -> None:
        """Drops what is known of `model`: it may be another than it was when its metadata was fetched."""
        for key in [key for key in self.known if key[0] == model]:
            self.known.pop(key, None)

    def _error_from_call(self, error: Exception, model: str) -> ClientError:
        if self.closed:
            return self.closed_error()
        if not isinstance(error, grpc.RpcError):
            return ClientError(f"{self.url}: gRPC refuses the call: {error}")
        failure = error_from_status(error.code(), error.details(), url=self.url, model=model)
        if isinstance(failure, InvalidRequest | NotFound):
            self.forget(model)
        return failure


def deadline_after(timeout_s: float | None) -> float | None:
    """The moment on the monotonic clock at which `timeout_s` from now ends, None for never."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def seconds_until(deadline: float | None) -> float | None:
    """The seconds that are left until `deadline`, at least 0; None for any number of them."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _pairs(metadata: CallMetadata) -> tuple[tuple[str, str | bytes], ...]:
    pairs = metadata.items() if isinstance(metadata, Mapping) else metadata
    return tuple(_header(name.lower(), value) for name, value in pairs)


def _header(name: str, value: str | bytes) -> tuple[str, str | bytes]:
    if not name or not _HEADER_CHARACTERS.issuperset(name):
        raise ClientError(f"header {name!r}: letters, digits and -_. of ASCII wanted in its name")
    if not name.endswith("-bin") and not (isinstance(value, str) and value.isascii() and value.isprintable()):
        raise ClientError(f"header {name!r}: printable ASCII wanted; other bytes need a name that ends in -bin")
    return name, value
