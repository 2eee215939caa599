"""The TraceSetting call: Triton's names of the settings, to and from those of the tracer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trtserve_engines.config import ConfigError
from trtserve_engines.options import nearest
from trtserve_protos import oip
from trtserve_server.errors import InvalidRequest, NotSupported
from trtserve_server.models.registry import Registry
from trtserve_server.rpc.handlers import MessageCall
from trtserve_server.tracing import Tracer
from trtserve_server.transport.call import Call

if TYPE_CHECKING:
    from trtserve_protos.oip import TraceSettingRequest, TraceSettingResponse

FIELDS = {
    "trace_file": "file",
    "trace_level": "level",
    "trace_rate": "rate",
    "trace_count": "count",
    "log_frequency": "log_frequency",
}
"""Triton's name of each setting, and ours."""


class TraceSettingService:
    """Reads and changes which requests are traced."""

    def __init__(self, tracer: Tracer, registry: Registry) -> None:
        self._tracer = tracer
        self._registry = registry

    def messages(self) -> Mapping[str, MessageCall]:
        """The call by its name."""
        return {"TraceSetting": self.trace_setting}

    async def trace_setting(self, request: TraceSettingRequest, call: Call) -> TraceSettingResponse:
        """Changes what is given, all or nothing; answers with the settings in force.

        Raises InvalidRequest, NotSupported, or ModelNotFound.
        """
        if request.model_name:
            self._registry.entry(request.model_name)
        for name in request.settings:
            _check_name(name)
        changes = {FIELDS[name]: _value(name, given.value) for name, given in request.settings.items()}
        if changes:
            try:
                self._tracer.update(request.model_name, changes)
            except ConfigError as error:
                raise InvalidRequest(f"trace setting {error}") from None
        response = oip.TraceSettingResponse()
        settings = self._tracer.settings(request.model_name)
        for name, ours in FIELDS.items():
            value = getattr(settings, ours)
            response.settings[name].value.extend(value if isinstance(value, tuple) else [str(value)])
        return response


def _value(name: str, given: Any) -> Any:
    """The value of a setting; None where none is given, which takes it back."""
    if not given:
        return None
    if name == "trace_level":
        return tuple(given)
    number = given[0].removeprefix("-")
    if len(given) != 1 or not number.isdecimal() or len(number) > 18:
        raise InvalidRequest(f"{name} = {list(given)}; wanted is one whole number")
    return int(given[0])


def _check_name(name: str) -> None:
    if name == "trace_file":
        raise NotSupported("trace_file cannot be changed by a call; start the server with --trace-file")
    if name not in FIELDS:
        raise InvalidRequest(f"trace setting {name!r} is unknown{nearest(name, FIELDS)}")
