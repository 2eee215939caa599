"""Trace and log settings, by the protocol's names, to and from messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trtserve_client.errors import InputError

if TYPE_CHECKING:
    from trtserve_protos.oip import LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse

TraceValue = str | int | Sequence[str] | None
"""One value or several; None takes a change back."""

LogValue = bool | int | str | None
"""None takes a change back."""


def fill_trace_settings(request: TraceSettingRequest, changes: Mapping[str, TraceValue]) -> None:
    """Writes changes into a request; the server checks them. Raises InputError for what has no place there."""
    for name, value in changes.items():
        values = [] if value is None else [value] if isinstance(value, str | int) else list(value)
        if not all(isinstance(each, str | int) for each in values):
            raise InputError(f"trace setting {name!r}: {value!r} given, a text, a number or several texts wanted")
        request.settings[name].value.extend(map(str, values))


def trace_settings_from_response(response: TraceSettingResponse) -> dict[str, list[str]]:
    """The settings in force, by their names."""
    return {name: list(setting.value) for name, setting in sorted(response.settings.items())}


def fill_log_settings(request: LogSettingsRequest, changes: Mapping[str, LogValue]) -> None:
    """Writes changes into a request; the server checks them. Raises InputError for what has no place there."""
    for name, value in changes.items():
        setting = request.settings[name]
        # A bool is an int to Python and must be asked first.
        if isinstance(value, bool):
            setting.bool_param = value
        elif isinstance(value, int) and 0 <= value < 2**32:
            setting.uint32_param = value
        elif isinstance(value, str):
            setting.string_param = value
        elif value is not None:
            raise InputError(f"log setting {name!r}: {value!r} given, a bool, a text or an int of 32 bits wanted")


def log_settings_from_response(response: LogSettingsResponse) -> dict[str, bool | int | str]:
    """The settings in force, by their names."""
    settings: dict[str, bool | int | str] = {}
    for name, setting in sorted(response.settings.items()):
        if field := setting.WhichOneof("parameter_choice"):
            settings[name] = getattr(setting, field)
    return settings
