"""The repository calls of the Open Inference Protocol as Triton has them: index, load, unload; KServe's form too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trtserve_engines.config import ConfigError
from trtserve_protos import oip
from trtserve_server.errors import InvalidRequest, NotSupported, RequestError, ServerStopping
from trtserve_server.models.catalogue import STOPPING, State
from trtserve_server.models.control import Done, Given, ModelControl
from trtserve_server.models.registry import Registry
from trtserve_server.pbtxt import values_from_json
from trtserve_server.rpc.handlers import MessageCall
from trtserve_server.rpc.settle import settle
from trtserve_server.transport.call import Call

if TYPE_CHECKING:
    from trtserve_protos.oip import (
        ModelRepositoryParameter,
        RepositoryIndexRequest,
        RepositoryIndexResponse,
        RepositoryModelLoadRequest,
        RepositoryModelLoadResponse,
        RepositoryModelUnloadRequest,
        RepositoryModelUnloadResponse,
    )

FILE = "file:"
"""What the names of parameters that hold files begin with."""

NOT_LOADED = "not loaded; RepositoryModelLoad loads it"

Parameters = Mapping[str, "ModelRepositoryParameter"]


class RepositoryService:
    """Index, load and unload. What `control` refuses in the server's mode is refused with what to set."""

    def __init__(self, registry: Registry, control: ModelControl) -> None:
        self._registry = registry
        self._control = control
        self._under_way: set[asyncio.Future[RequestError | None]] = set()

    def messages(self) -> Mapping[str, MessageCall]:
        """The calls by their names."""
        return {
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.model_load,
            "RepositoryModelUnload": self.model_unload,
        }

    def end(self) -> None:
        """Fails the calls that are under way: what they wait for may take longer than the server has left."""
        for future in self._under_way:
            settle(future, ServerStopping(STOPPING))

    async def repository_index(self, request: RepositoryIndexRequest, call: Call) -> RepositoryIndexResponse:
        """Every model with its state, and the reason where it does not serve; what could be loaded as well."""
        _check_repository(request.repository_name)
        response = oip.RepositoryIndexResponse()
        for entry in self._registry.entries():
            if entry.state is State.READY or not request.ready:
                response.models.add(name=entry.name, version=entry.version, state=entry.state.value, reason=entry.note)
        if self._control.on_request and not request.ready:
            known = {model.name for model in response.models}
            for name in await self._names_on_disk():
                if name not in known:
                    response.models.add(name=name, state=State.UNAVAILABLE.value, reason=NOT_LOADED)
        return response

    async def model_load(self, request: RepositoryModelLoadRequest, call: Call) -> RepositoryModelLoadResponse:
        """Loads a model, or again what has changed of it; answers when it serves. Raises RequestError."""
        name, is_kserve = _model_name(request)
        given = _given(request.parameters)
        await self._done(lambda done: self._control.load(name, given, done))
        return oip.RepositoryModelLoadResponse(model_name=name if is_kserve else "", isLoaded=is_kserve)

    async def model_unload(self, request: RepositoryModelUnloadRequest, call: Call) -> RepositoryModelUnloadResponse:
        """Unloads a model; answers when its requests are answered and its memory is freed. Raises RequestError."""
        name, is_kserve = _model_name(request)
        dependents = _unload_dependents(request.parameters)
        await self._done(lambda done: self._control.unload(name, done, dependents=dependents))
        return oip.RepositoryModelUnloadResponse(model_name=name if is_kserve else "", isUnloaded=is_kserve)

    async def _names_on_disk(self) -> list[str]:
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._control.names)
        except ConfigError:
            return []  # a repository that is away for a while; what is loaded has been listed

    async def _done(self, begin: Callable[[Done], None]) -> None:
        """Waits for an operation, which goes on where the caller gives up."""
        future: asyncio.Future[RequestError | None] = asyncio.get_running_loop().create_future()
        self._under_way.add(future)
        try:
            begin(lambda error: settle(future, error))
            error = await future
        finally:
            self._under_way.discard(future)
        if error is not None:
            raise error


def _model_name(request: RepositoryModelLoadRequest | RepositoryModelUnloadRequest) -> tuple[str, bool]:
    """The model's name, and whether it came in KServe's form: in field 1, which is Triton's repository_name."""
    if not request.model_name and request.repository_name:
        return request.repository_name, True
    _check_repository(request.repository_name)
    if not request.model_name:
        raise InvalidRequest("no model name given; RepositoryIndex lists what can be loaded and unloaded")
    return request.model_name, False


def _check_repository(name: str) -> None:
    if name:
        raise NotSupported(f"repository_name = {name!r}: repositories have no names here; leave it empty for all")


def _given(parameters: Parameters) -> Given:
    """The configuration and the files that stand in for the model's own."""
    files = {}
    for key, parameter in parameters.items():
        if key.startswith(FILE):
            files[key.removeprefix(FILE)] = _value(key, parameter, "bytes_param", "the content of the file as bytes")
        elif key != "config":
            raise InvalidRequest(
                f"parameter {key!r} is unknown; known are 'config', a ModelConfig in JSON, and 'file:VERSION/NAME'"
            )
    if "config" not in parameters:
        if files:
            raise InvalidRequest("'file:' parameters without 'config', which has to say how the files are served")
        return Given()
    text = _value("config", parameters["config"], "string_param", "a ModelConfig in JSON as a string")
    try:
        return Given(values_from_json(text), files)
    except ConfigError as error:
        raise InvalidRequest(f"parameter 'config': {error}") from None


def _value(key: str, parameter: ModelRepositoryParameter, field: str, wanted: str) -> Any:
    if parameter.WhichOneof("parameter_choice") != field:
        raise InvalidRequest(f"parameter {key!r} has no such value; wanted is {wanted}")
    return getattr(parameter, field)


def _unload_dependents(parameters: Parameters) -> bool:
    """Whether the models that a model is composed of are to be unloaded with it."""
    for key, parameter in parameters.items():
        if key != "unload_dependents":
            raise InvalidRequest(f"parameter {key!r} is unknown; known is 'unload_dependents', true or false")
        if parameter.WhichOneof("parameter_choice") != "bool_param":
            raise InvalidRequest("parameter 'unload_dependents' is not a boolean; wanted is true or false")
    return any(parameter.bool_param for parameter in parameters.values())
