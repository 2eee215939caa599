"""Asks the server about itself and the model before any load, and sends one request: mistakes show here, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtserve_client.channel import ChannelOptions, TlsOptions
from trtserve_client.client import Client
from trtserve_client.errors import (
    ClientError,
    InvalidRequest,
    NotFound,
    ServerError,
    Unavailable,
    Unimplemented,
)
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import RefusedError, UnreachableError, UsageError
from trtserve_client.load.jobs import Connection
from trtserve_client.load.timings import asking
from trtserve_client.metadata import ModelMetadata
from trtserve_client.result import Result

_PROBE_S = 10.0


@dataclass(frozen=True)
class Target:
    """The server and the model that were found."""

    server: str
    """Its name and version, as it says."""
    model: ModelMetadata


def connection_of(config: LoadConfig) -> Connection:
    """How to connect, by the configuration; by no streams yet. Raises UsageError."""
    files = (config.root_certificates, config.private_key, config.certificate_chain)
    pairs = []
    for word in config.metadata:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise UsageError(f"--metadata {word!r}: wanted is NAME=VALUE")
        pairs.append((name.lower(), value))
    try:
        tls = TlsOptions(*(file or None for file in files)) if any(files) else config.tls or None
    except ClientError as error:
        raise UsageError(str(error)) from None
    # Nothing is tried again: what fails under load is to be counted.
    options = ChannelOptions(max_attempts=1)
    return Connection(config.url, tls, tuple(pairs), options, 0, config.timeout_s)


def open_client(connection: Connection) -> Client:
    """A client for questions beside the load. Raises UsageError."""
    try:
        options = connection.options
        return Client(connection.url, tls=connection.tls, options=options, metadata=connection.metadata)
    except ClientError as error:
        raise UsageError(str(error)) from None


def find_target(client: Client, config: LoadConfig) -> Target:
    """The server and its model, ready. Raises UnreachableError or RefusedError."""
    try:
        server = client.server_metadata(timeout_s=_PROBE_S)
        if not client.model_ready(config.model, config.version, timeout_s=_PROBE_S):
            raise RefusedError(f"model {config.model!r} is not ready at {config.url}; {_known_models(client)}")
        model = client.model_metadata(config.model, config.version, timeout_s=_PROBE_S)
    except NotFound as error:
        raise RefusedError(f"{config.url} has no such model: {error.details}; {_known_models(client)}") from None
    except Unavailable as error:
        raise _unavailable(client, error, config) from None
    except ClientError as error:
        raise RefusedError(str(error)) from None
    return Target(f"{server.name} {server.version}".strip(), model)


def first_answer(client: Client, config: LoadConfig, inputs: Mapping[str, np.ndarray]) -> Result:
    """The answer to one request as the load will send it. Raises UsageError or RefusedError."""
    asked: dict[str, Any] = {"version": config.version, "parameters": asking(config), "timeout_s": config.timeout_s}
    try:
        answer = client.infer(config.model, inputs, check=False, **asked)
    except InvalidRequest as error:
        raise UsageError(f"the server refuses the request: {error.details}.{_advice(config)}") from None
    except ServerError as error:
        raise RefusedError(f"the first request failed: {error}.{_advice(config)}") from None
    except ClientError as error:
        raise UsageError(str(error)) from None
    if config.timing and answer.timing is None:
        raise RefusedError(f"{config.url} does not say where the time of an answer goes; go without --timing")
    return answer


def _advice(config: LoadConfig) -> str:
    if config.data != "random":
        return ""
    return " Where an input takes certain values only, say so with --range NAME=LOW:HIGH, or give real ones with --data"


def _unavailable(client: Client, error: Unavailable, config: LoadConfig) -> Exception:
    """UNAVAILABLE is also what a server says that is there and cannot serve."""
    try:
        client.server_live(timeout_s=_PROBE_S)
    except ServerError:
        return UnreachableError(f"nothing answers at {config.url}: {error.details}; is the server running there?")
    return RefusedError(f"{config.url}: {error.details}")


def _known_models(client: Client) -> str:
    try:
        index = client.repository_index(timeout_s=_PROBE_S)
    except Unimplemented:
        return "the server does not list its models"
    except ClientError as error:
        return f"its models cannot be listed: {error}"
    return "it knows " + (", ".join(f"{each.name} ({each.state})" for each in index) or "no models")
