"""Every unary call as a value: its method, the request's bytes, and how the answer's bytes are read. Pure.

Those that ask and infer are here, those that change the server in `control_operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from trtserve_client.errors import BadResponse
from trtserve_client.inputs import Tensor
from trtserve_client.messages import Outputs, Parameters, infer_request, result_from_response
from trtserve_client.metadata import (
    ModelMetadata,
    ServerMetadata,
    model_metadata_from_response,
    server_metadata_from_response,
)
from trtserve_client.result import Result
from trtserve_protos import health as health_protocol, oip

T = TypeVar("T")


@dataclass(frozen=True)
class Operation(Generic[T]):
    """A call that is ready to go. `model` is what an error should name, "" where no model is concerned."""

    path: str
    request: bytes
    read: Callable[[bytes], T]
    model: str = ""

    def answer(self, response: bytes) -> T:
        """What the caller asked for, from the response's bytes. Raises BadResponse."""
        try:
            return self.read(response)
        except DecodeError as error:
            raise BadResponse(f"the answer to {self.path} cannot be read: {error}") from error


def server_live() -> Operation[bool]:
    """Asks whether the server runs."""
    return Operation(path_of("ServerLive"), b"", lambda response: oip.ServerLiveResponse.FromString(response).live)


def server_ready() -> Operation[bool]:
    """Asks whether every model that should serve does."""
    return Operation(path_of("ServerReady"), b"", lambda response: oip.ServerReadyResponse.FromString(response).ready)


def model_ready(model: str, version: str) -> Operation[bool]:
    """Asks whether a model serves."""
    request = oip.ModelReadyRequest(name=model, version=version).SerializeToString()
    return Operation(
        path_of("ModelReady"), request, lambda response: oip.ModelReadyResponse.FromString(response).ready, model
    )


def server_metadata() -> Operation[ServerMetadata]:
    """Asks for the server's name, version and extensions."""
    return Operation(
        path_of("ServerMetadata"),
        b"",
        lambda response: server_metadata_from_response(oip.ServerMetadataResponse.FromString(response)),
    )


def model_metadata(model: str, version: str) -> Operation[ModelMetadata]:
    """Asks for a model's versions, inputs and outputs."""
    return Operation(
        path_of("ModelMetadata"),
        oip.ModelMetadataRequest(name=model, version=version).SerializeToString(),
        lambda response: model_metadata_from_response(oip.ModelMetadataResponse.FromString(response)),
        model,
    )


def model_config(model: str, version: str) -> Operation[oip.ModelConfig]:
    """Asks for a model's configuration."""
    request = oip.ModelConfigRequest(name=model, version=version).SerializeToString()
    return Operation(
        path_of("ModelConfig"), request, lambda response: oip.ModelConfigResponse.FromString(response).config, model
    )


def model_statistics(model: str, version: str) -> Operation[list[oip.ModelStatistics]]:
    """Asks for the counters of a model, or of all with ""."""
    return Operation(
        path_of("ModelStatistics"),
        oip.ModelStatisticsRequest(name=model, version=version).SerializeToString(),
        lambda response: list(oip.ModelStatisticsResponse.FromString(response).model_stats),
        model,
    )


def health(service: str) -> Operation[str]:
    """Asks the standard health service for the name of the status of `service`."""
    return Operation(
        health_protocol.METHODS["Check"].path,
        health_protocol.HealthCheckRequest(service=service).SerializeToString(),
        lambda response: _status_name(health_protocol.HealthCheckResponse.FromString(response).status),
    )


def infer(
    model: str,
    arrays: Mapping[str, Tensor],
    *,
    version: str,
    outputs: Outputs | None,
    id: str,
    parameters: Parameters | None,
) -> Operation[Result]:
    """Asks for an inference. Raises InputError for what cannot be sent."""
    request = infer_request(model, arrays, version=version, outputs=outputs, id=id, parameters=parameters)
    return Operation(path_of("ModelInfer"), request, partial(result_from_response, outputs=outputs), model)


def path_of(method: str) -> str:
    """The path of a call of the protocol."""
    return oip.METHODS[method].path


def _status_name(number: int) -> str:
    names = {value.number: value.name for value in health_protocol.HealthCheckResponse.ServingStatus.DESCRIPTOR.values}
    return names.get(number, f"UNKNOWN STATUS {number}")
