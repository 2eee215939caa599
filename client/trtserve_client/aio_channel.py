"""The channel of an asynchronous client, which belongs to the running event loop, and the errors of its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import grpc.aio

from trtserve_client.aio_requests import task_is_cancelled
from trtserve_client.endpoint import Endpoint
from trtserve_client.errors import ClientError


def open_channel(endpoint: Endpoint) -> grpc.aio.Channel:
    """A channel to the endpoint's place. Raises ClientError outside of a running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ClientError("an asynchronous client must be made inside a running event loop") from None
    arguments = endpoint.options.channel_arguments(endpoint.target)
    if endpoint.tls is None:
        return grpc.aio.insecure_channel(endpoint.target, arguments, endpoint.options.compression)
    return grpc.aio.secure_channel(endpoint.target, endpoint.tls.credentials(), arguments, endpoint.options.compression)


@contextmanager
def errors_of_call(endpoint: Endpoint, model: str) -> Iterator[None]:
    """Turns what a call about `model` ends with into a ClientError."""
    try:
        with endpoint.errors_of_call(model):
            yield
    except asyncio.CancelledError:
        # close() ends running calls as if their tasks had been cancelled, which nobody did.
        if endpoint.closed and not task_is_cancelled():
            raise endpoint.closed_error() from None
        raise
