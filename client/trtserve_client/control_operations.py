"""The calls that change the server, as values like those in `operations`: repository, settings, shared memory. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

from google.protobuf import json_format

from trtserve_client.cuda_shared_memory import CudaSharedMemory
from trtserve_client.errors import InputError
from trtserve_client.metadata import (
    CudaSharedMemoryStatus,
    ModelIndex,
    SharedMemoryStatus,
    cuda_shared_memory_status_from_response,
    model_indexes_from_response,
    shared_memory_status_from_response,
)
from trtserve_client.operations import Operation, path_of
from trtserve_client.settings import (
    LogValue,
    TraceValue,
    fill_log_settings,
    fill_trace_settings,
    log_settings_from_response,
    trace_settings_from_response,
)
from trtserve_client.shared_memory import SharedMemory
from trtserve_protos import oip

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelConfig

Config = Union[str, Mapping[str, Any], "ModelConfig"]
"""A model's configuration: a ModelConfig in JSON, as the mapping that JSON stands for, or as the message."""

Files = Mapping[str, bytes]
"""The files of a model's folder by their paths in it, for example "1/model.onnx"."""


def repository_index(ready: bool) -> Operation[list[ModelIndex]]:
    """Asks for the models that the server knows, or for those that serve."""
    return Operation(
        path_of("RepositoryIndex"),
        oip.RepositoryIndexRequest(ready=ready).SerializeToString(),
        lambda response: model_indexes_from_response(oip.RepositoryIndexResponse.FromString(response)),
    )


def load_model(model: str, config: Config | None, files: Files | None) -> Operation[None]:
    """Has a model loaded. Raises InputError for files without a configuration, and what is no configuration."""
    request = oip.RepositoryModelLoadRequest(model_name=model)
    if files and config is None:
        raise InputError(f"model {model!r}: files given without a config, which has to say how they are served")
    if config is not None:
        request.parameters["config"].string_param = _json(config)
    for path, content in (files or {}).items():
        if not isinstance(content, bytes):
            raise InputError(f"file {path!r}: {type(content).__name__} given, its content as bytes wanted")
        request.parameters[f"file:{path}"].bytes_param = content
    return Operation(path_of("RepositoryModelLoad"), request.SerializeToString(), lambda response: None, model)


def unload_model(model: str, unload_dependents: bool) -> Operation[None]:
    """Has a model unloaded, and where asked for the models that it is composed of."""
    request = oip.RepositoryModelUnloadRequest(model_name=model)
    if unload_dependents:
        request.parameters["unload_dependents"].bool_param = True
    return Operation(path_of("RepositoryModelUnload"), request.SerializeToString(), lambda response: None, model)


def trace_settings(changes: Mapping[str, TraceValue] | None, model: str) -> Operation[dict[str, list[str]]]:
    """Changes which requests are traced, of a model or with "" of all, and asks for what is in force."""
    request = oip.TraceSettingRequest(model_name=model)
    fill_trace_settings(request, changes or {})
    return Operation(
        path_of("TraceSetting"),
        request.SerializeToString(),
        lambda response: trace_settings_from_response(oip.TraceSettingResponse.FromString(response)),
        model,
    )


def log_settings(changes: Mapping[str, LogValue] | None) -> Operation[dict[str, bool | int | str]]:
    """Changes what is logged, and asks for what is in force."""
    request = oip.LogSettingsRequest()
    fill_log_settings(request, changes or {})
    return Operation(
        path_of("LogSettings"),
        request.SerializeToString(),
        lambda response: log_settings_from_response(oip.LogSettingsResponse.FromString(response)),
    )


def register_shared_memory(memory: SharedMemory) -> Operation[None]:
    """Makes shared memory known to the server."""
    request = oip.SystemSharedMemoryRegisterRequest(name=memory.name, key=memory.key, byte_size=memory.byte_size)
    return Operation(path_of("SystemSharedMemoryRegister"), request.SerializeToString(), lambda response: None)


def unregister_shared_memory(memory: SharedMemory | str) -> Operation[None]:
    """Makes the server forget shared memory."""
    request = oip.SystemSharedMemoryUnregisterRequest(name=_name(memory)).SerializeToString()
    return Operation(path_of("SystemSharedMemoryUnregister"), request, lambda response: None)


def shared_memory_status() -> Operation[list[SharedMemoryStatus]]:
    """Asks for the system shared memory that is registered."""
    return Operation(
        path_of("SystemSharedMemoryStatus"),
        b"",
        lambda response: shared_memory_status_from_response(oip.SystemSharedMemoryStatusResponse.FromString(response)),
    )


def register_cuda_shared_memory(memory: CudaSharedMemory) -> Operation[None]:
    """Makes memory of a GPU known to the server."""
    request = oip.CudaSharedMemoryRegisterRequest(
        name=memory.name, raw_handle=memory.raw_handle, device_id=memory.device_id, byte_size=memory.byte_size
    )
    return Operation(path_of("CudaSharedMemoryRegister"), request.SerializeToString(), lambda response: None)


def unregister_cuda_shared_memory(memory: CudaSharedMemory | str) -> Operation[None]:
    """Makes the server forget memory of a GPU."""
    request = oip.CudaSharedMemoryUnregisterRequest(name=_name(memory)).SerializeToString()
    return Operation(path_of("CudaSharedMemoryUnregister"), request, lambda response: None)


def cuda_shared_memory_status() -> Operation[list[CudaSharedMemoryStatus]]:
    """Asks for the memory of GPUs that is registered."""
    return Operation(
        path_of("CudaSharedMemoryStatus"),
        b"",
        lambda response: cuda_shared_memory_status_from_response(
            oip.CudaSharedMemoryStatusResponse.FromString(response)
        ),
    )


def _name(memory: SharedMemory | CudaSharedMemory | str) -> str:
    return memory if isinstance(memory, str) else memory.name


def _json(config: Config) -> str:
    if isinstance(config, str):
        return config
    if isinstance(config, oip.ModelConfig):
        return json_format.MessageToJson(config, indent=None)
    try:
        return json.dumps(config)
    except (TypeError, ValueError) as error:
        raise InputError(f"config: it cannot be written as JSON: {error}") from None
