"""The twin of `calls` for the asynchronous client, method for method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

from trtserve_client import control_operations as control, operations
from trtserve_client.control_operations import Config, Files
from trtserve_client.cuda_shared_memory import CudaSharedMemory
from trtserve_client.endpoint import CallMetadata, Endpoint
from trtserve_client.metadata import (
    CudaSharedMemoryStatus,
    ModelIndex,
    ModelMetadata,
    ServerMetadata,
    SharedMemoryStatus,
)
from trtserve_client.operations import Operation
from trtserve_client.settings import LogValue, TraceValue
from trtserve_client.shared_memory import SharedMemory
from trtserve_protos import oip

T = TypeVar("T")


class Calls(ABC):
    """A client without its connection: `_run` moves an operation's bytes."""

    _endpoint: Endpoint

    @abstractmethod
    async def _run(self, operation: Operation[T], timeout_s: float | None, metadata: CallMetadata | None) -> T:
        """Makes the call and gives what it asked for. Raises ClientError."""

    async def server_live(self, *, timeout_s: float | None = None, metadata: CallMetadata | None = None) -> bool:
        """Whether the server runs."""
        return await self._run(operations.server_live(), timeout_s, metadata)

    async def server_ready(self, *, timeout_s: float | None = None, metadata: CallMetadata | None = None) -> bool:
        """Whether every model that should serve does."""
        return await self._run(operations.server_ready(), timeout_s, metadata)

    async def model_ready(
        self, model: str, version: str = "", *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> bool:
        """Whether the model serves; without `version`, whether the one that the server would choose does."""
        return await self._run(operations.model_ready(model, version), timeout_s, metadata)

    async def server_metadata(
        self, *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> ServerMetadata:
        """The server's name, version and protocol extensions."""
        return await self._run(operations.server_metadata(), timeout_s, metadata)

    async def model_metadata(
        self, model: str, version: str = "", *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> ModelMetadata:
        """The model's versions, inputs and outputs, fetched anew; later checks of inputs use them."""
        found = await self._run(operations.model_metadata(model, version), timeout_s, metadata)
        self._endpoint.known[model, version] = found
        return found

    async def model_config(
        self, model: str, version: str = "", *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> oip.ModelConfig:
        """The model's configuration as the protocol's message."""
        return await self._run(operations.model_config(model, version), timeout_s, metadata)

    async def model_statistics(
        self,
        model: str = "",
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
    ) -> list[oip.ModelStatistics]:
        """The counters of a model, or of all, as the protocol's messages."""
        return await self._run(operations.model_statistics(model, version), timeout_s, metadata)

    async def health(
        self, service: str = "", *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> str:
        """The status of `service` by the standard health service: SERVING, NOT_SERVING or UNKNOWN; "" = the server."""
        return await self._run(operations.health(service), timeout_s, metadata)

    async def repository_index(
        self, *, ready: bool = False, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> list[ModelIndex]:
        """The models that the server knows and their states; with `ready`, only those that serve."""
        return await self._run(control.repository_index(ready), timeout_s, metadata)

    async def load_model(
        self,
        model: str,
        *,
        config: Config | None = None,
        files: Files | None = None,
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
    ) -> None:
        """Loads a model of the server's repository, or again what has changed of it; returns when it serves.

        `config`, a ModelConfig as JSON, mapping or message, stands in for the model's own. `files` stand in for its
        folder: {"1/model.onnx": content} serves a model that the server has not on its disk, and wants a config. A
        server takes this in its explicit mode only. Where loading fails, what served before serves on.
        """
        return await self._run(control.load_model(model, config, files), timeout_s, metadata)

    async def unload_model(
        self,
        model: str,
        *,
        unload_dependents: bool = False,
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
    ) -> None:
        """Unloads a model; returns when its requests are answered and its memory is given back.

        `unload_dependents` unloads the models that an ensemble is composed of with it.
        """
        return await self._run(control.unload_model(model, unload_dependents), timeout_s, metadata)

    async def trace_settings(
        self,
        changes: Mapping[str, TraceValue] | None = None,
        *,
        model: str = "",
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
    ) -> dict[str, list[str]]:
        """Which requests are traced, after `changes`; of all models, or of one that has settings of its own.

        Names are the protocol's: {"trace_level": ["TIMESTAMPS"], "trace_rate": 1}. None takes a change back.
        """
        return await self._run(control.trace_settings(changes, model), timeout_s, metadata)

    async def log_settings(
        self,
        changes: Mapping[str, LogValue] | None = None,
        *,
        timeout_s: float | None = None,
        metadata: CallMetadata | None = None,
    ) -> dict[str, bool | int | str]:
        """What the server logs, after `changes`, for example {"log_verbose_level": 1}. None takes a change back."""
        return await self._run(control.log_settings(changes), timeout_s, metadata)

    async def register_shared_memory(
        self, memory: SharedMemory, *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> None:
        """Lets the server, on this machine, read inputs from the memory and write outputs to it.

        Then memory.tensor(...) and memory.put(...) can be given as inputs, and memory.room(...) as an output.
        """
        return await self._run(control.register_shared_memory(memory), timeout_s, metadata)

    async def unregister_shared_memory(
        self, memory: SharedMemory | str, *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> None:
        """Makes the server forget the memory, or what has a name, "" = all; requests under way keep it."""
        return await self._run(control.unregister_shared_memory(memory), timeout_s, metadata)

    async def shared_memory_status(
        self, *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> list[SharedMemoryStatus]:
        """The system shared memory that is registered, by whomever."""
        return await self._run(control.shared_memory_status(), timeout_s, metadata)

    async def register_cuda_shared_memory(
        self, memory: CudaSharedMemory, *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> None:
        """Lets the server, on this machine, read inputs from memory of a GPU and write outputs to it.

        Then memory.tensor(...) can be given as an input, and memory.room(...) as an output, which no Result holds.
        """
        return await self._run(control.register_cuda_shared_memory(memory), timeout_s, metadata)

    async def unregister_cuda_shared_memory(
        self, memory: CudaSharedMemory | str, *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> None:
        """Makes the server forget the memory, or what has a name, "" = all; requests under way keep it."""
        return await self._run(control.unregister_cuda_shared_memory(memory), timeout_s, metadata)

    async def cuda_shared_memory_status(
        self, *, timeout_s: float | None = None, metadata: CallMetadata | None = None
    ) -> list[CudaSharedMemoryStatus]:
        """The memory of GPUs that is registered, by whomever."""
        return await self._run(control.cuda_shared_memory_status(), timeout_s, metadata)
