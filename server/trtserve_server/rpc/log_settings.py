"""The LogSettings call: Triton's names of the settings, to and from those of the log output."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trtserve_engines.options import nearest
from trtserve_protos import oip
from trtserve_server.config import LOG_FORMATS
from trtserve_server.errors import InvalidRequest, NotSupported
from trtserve_server.log_output import LogOutput
from trtserve_server.rpc.handlers import MessageCall
from trtserve_server.transport.call import Call

if TYPE_CHECKING:
    from trtserve_protos.oip import LogSettingsRequest, LogSettingsResponse

log = logging.getLogger(__name__)

FIELDS = {
    "log_info": ("info", "bool_param", "true or false"),
    "log_warning": ("warning", "bool_param", "true or false"),
    "log_error": ("error", "bool_param", "true or false"),
    "log_verbose_level": ("verbose_level", "uint32_param", "a whole number of 0 or more"),
    "log_format": ("format", "string_param", f"one of {', '.join(LOG_FORMATS)}"),
}
"""Triton's name: ours, the field of the message that holds the value, what is wanted."""


class LogSettingsService:
    """Reads and changes what is logged."""

    def __init__(self, output: LogOutput) -> None:
        self._output = output

    def messages(self) -> Mapping[str, MessageCall]:
        """The call by its name."""
        return {"LogSettings": self.log_settings}

    async def log_settings(self, request: LogSettingsRequest, call: Call) -> LogSettingsResponse:
        """Changes what is given, all or nothing; answers with all settings. Raises InvalidRequest or NotSupported."""
        for name in request.settings:
            _check_name(name)
        changes = {FIELDS[name][0]: self._value(name, given) for name, given in request.settings.items()}
        if changes:
            # Before they hold: who makes the log silent must not do so unnoticed.
            log.warning("log settings are changed by a call: %s", changes)
            self._output.change(replace(self._output.settings, **changes))
        response = oip.LogSettingsResponse()
        response.settings["log_file"].string_param = self._output.file
        for name, (ours, field, _) in FIELDS.items():
            setattr(response.settings[name], field, getattr(self._output.settings, ours))
        return response

    def _value(self, name: str, given: Any) -> Any:
        """The value given; where there is none, that of the server's start."""
        ours, field, wanted = FIELDS[name]
        kind = given.WhichOneof("parameter_choice")
        if kind is None:
            return getattr(self._output.initial, ours)
        value = getattr(given, kind)
        if kind != field or (name == "log_format" and value not in LOG_FORMATS):
            raise InvalidRequest(f"{name} = {value!r}; wanted is {wanted}")
        return value


def _check_name(name: str) -> None:
    if name == "log_file":
        raise NotSupported("log_file cannot be changed by a call; start the server with --log-file")
    if name not in FIELDS:
        raise InvalidRequest(f"log setting {name!r} is unknown{nearest(name, FIELDS)}")
