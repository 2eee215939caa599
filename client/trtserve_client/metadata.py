"""What a server says about itself and its models, as plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from trtserve_client.result import ParameterValue, values_from_parameters

if TYPE_CHECKING:
    from trtserve_protos import oip


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output. `datatype` is the wire's name, for example "FP32"; -1 in `shape` takes any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}"


@dataclass(frozen=True)
class ModelMetadata:
    """A model: its ready versions, what executes it, what it takes and gives, batch dimension included.

    `parameters` is what the server says of it beyond that: of trtserve backend, device, instances, max_batch_size, and
    the reasons for them.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)

    @cached_property
    def input_by_name(self) -> dict[str, TensorMetadata]:
        """Each input by its name."""
        return {tensor.name: tensor for tensor in self.inputs}


@dataclass(frozen=True)
class ServerMetadata:
    """The server's name, version and the protocol extensions that it implements."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class ModelIndex:
    """One line of the repository's index. `state` is READY, UNAVAILABLE, LOADING, UNLOADING or UNKNOWN."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class SharedMemoryStatus:
    """System shared memory that a server knows: `byte_size` bytes, from `offset` on, of what `key` names."""

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class CudaSharedMemoryStatus:
    """Memory of a GPU that a server knows."""

    name: str
    device_id: int
    byte_size: int


def model_metadata_from_response(response: oip.ModelMetadataResponse) -> ModelMetadata:
    """The record of a ModelMetadata answer."""
    return ModelMetadata(
        name=response.name,
        versions=tuple(response.versions),
        platform=response.platform,
        inputs=tuple(TensorMetadata(each.name, each.datatype, tuple(each.shape)) for each in response.inputs),
        outputs=tuple(TensorMetadata(each.name, each.datatype, tuple(each.shape)) for each in response.outputs),
        parameters=values_from_parameters(response.parameters),
    )


def server_metadata_from_response(response: oip.ServerMetadataResponse) -> ServerMetadata:
    """The record of a ServerMetadata answer."""
    return ServerMetadata(response.name, response.version, tuple(response.extensions))


def model_indexes_from_response(response: oip.RepositoryIndexResponse) -> list[ModelIndex]:
    """The records of a RepositoryIndex answer, in the server's order."""
    return [ModelIndex(each.name, each.version, each.state, each.reason) for each in response.models]


def shared_memory_status_from_response(response: oip.SystemSharedMemoryStatusResponse) -> list[SharedMemoryStatus]:
    """The records of a SystemSharedMemoryStatus answer, by their names."""
    return [
        SharedMemoryStatus(name, region.key, region.offset, region.byte_size)
        for name, region in sorted(response.regions.items())
    ]


def cuda_shared_memory_status_from_response(
    response: oip.CudaSharedMemoryStatusResponse,
) -> list[CudaSharedMemoryStatus]:
    """The records of a CudaSharedMemoryStatus answer, by their names."""
    return [
        CudaSharedMemoryStatus(name, region.device_id, region.byte_size)
        for name, region in sorted(response.regions.items())
    ]
