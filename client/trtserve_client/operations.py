"""Every unary call as a value: its method, the request's bytes, and how the answer's bytes are read. Pure."""

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
    ModelIndex,
    ModelMetadata,
    ServerMetadata,
    SharedMemoryStatus,
    model_indexes_from_response,
    model_metadata_from_response,
    server_metadata_from_response,
    shared_memory_status_from_response,
)
from trtserve_client.result import Result
from trtserve_client.shared_memory import SharedMemory
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
    return Operation(_path("ServerLive"), b"", lambda response: oip.ServerLiveResponse.FromString(response).live)


def server_ready() -> Operation[bool]:
    """Asks whether every model that should serve does."""
    return Operation(_path("ServerReady"), b"", lambda response: oip.ServerReadyResponse.FromString(response).ready)


def model_ready(model: str, version: str) -> Operation[bool]:
    """Asks whether a model serves."""
    request = oip.ModelReadyRequest(name=model, version=version).SerializeToString()
    return Operation(
        _path("ModelReady"), request, lambda response: oip.ModelReadyResponse.FromString(response).ready, model
    )


def server_metadata() -> Operation[ServerMetadata]:
    """Asks for the server's name, version and extensions."""
    return Operation(
        _path("ServerMetadata"),
        b"",
        lambda response: server_metadata_from_response(oip.ServerMetadataResponse.FromString(response)),
    )


def model_metadata(model: str, version: str) -> Operation[ModelMetadata]:
    """Asks for a model's versions, inputs and outputs."""
    return Operation(
        _path("ModelMetadata"),
        oip.ModelMetadataRequest(name=model, version=version).SerializeToString(),
        lambda response: model_metadata_from_response(oip.ModelMetadataResponse.FromString(response)),
        model,
    )


def model_config(model: str, version: str) -> Operation[oip.ModelConfig]:
    """Asks for a model's configuration."""
    request = oip.ModelConfigRequest(name=model, version=version).SerializeToString()
    return Operation(
        _path("ModelConfig"), request, lambda response: oip.ModelConfigResponse.FromString(response).config, model
    )


def model_statistics(model: str, version: str) -> Operation[list[oip.ModelStatistics]]:
    """Asks for the counters of a model, or of all with ""."""
    return Operation(
        _path("ModelStatistics"),
        oip.ModelStatisticsRequest(name=model, version=version).SerializeToString(),
        lambda response: list(oip.ModelStatisticsResponse.FromString(response).model_stats),
        model,
    )


def repository_index(ready: bool) -> Operation[list[ModelIndex]]:
    """Asks for the models that the server knows, or for those that serve."""
    return Operation(
        _path("RepositoryIndex"),
        oip.RepositoryIndexRequest(ready=ready).SerializeToString(),
        lambda response: model_indexes_from_response(oip.RepositoryIndexResponse.FromString(response)),
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
    return Operation(_path("ModelInfer"), request, partial(result_from_response, outputs=outputs), model)


def register_shared_memory(memory: SharedMemory) -> Operation[None]:
    """Makes shared memory known to the server."""
    request = oip.SystemSharedMemoryRegisterRequest(name=memory.name, key=memory.key, byte_size=memory.byte_size)
    return Operation(_path("SystemSharedMemoryRegister"), request.SerializeToString(), lambda response: None)


def unregister_shared_memory(memory: SharedMemory) -> Operation[None]:
    """Makes the server forget shared memory."""
    request = oip.SystemSharedMemoryUnregisterRequest(name=memory.name).SerializeToString()
    return Operation(_path("SystemSharedMemoryUnregister"), request, lambda response: None)


def shared_memory_status() -> Operation[list[SharedMemoryStatus]]:
    """Asks for the system shared memory that is registered."""
    return Operation(
        _path("SystemSharedMemoryStatus"),
        b"",
        lambda response: shared_memory_status_from_response(oip.SystemSharedMemoryStatusResponse.FromString(response)),
    )


def _path(method: str) -> str:
    return oip.METHODS[method].path


def _status_name(number: int) -> str:
    names = {value.number: value.name for value in health_protocol.HealthCheckResponse.ServingStatus.DESCRIPTOR.values}
    return names.get(number, f"UNKNOWN STATUS {number}")
