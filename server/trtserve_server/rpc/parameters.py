"""Values of a message's parameters, with clear errors for what is not what it should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trtserve_server.errors import InvalidRequest

if TYPE_CHECKING:
    from trtserve_protos.oip import InferParameter

_LARGEST = 2**63 - 1


def whole_number(parameters: Mapping[str, InferParameter], key: str) -> int:
    """The value of `key`, which may be written as text. Raises InvalidRequest."""
    value = value_of(parameters[key])
    if isinstance(value, str) and value.isdecimal() and len(value) <= len(str(_LARGEST)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise InvalidRequest(
            f"parameter {key!r} is {repr(value)[:40]}; wanted is a whole number of 0 or more, at most {_LARGEST}"
        )
    return value


def flag(parameters: Mapping[str, InferParameter], key: str, *, default: bool) -> bool:
    """The value of `key`, which may be written as text. Raises InvalidRequest."""
    if key not in parameters:
        return default
    value = value_of(parameters[key])
    if value not in (True, False, "true", "false"):
        raise InvalidRequest(f"parameter {key!r} is {repr(value)[:40]}; wanted is true or false")
    return value in (True, "true")


def value_of(parameter: InferParameter) -> bool | int | str | float | None:
    """The parameter's value; None where it has none."""
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)
