"""LoadConfig from words of a command line or from the table of a plan file; both derive from its fields."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from trtserve_client.load.config import LoadConfig, flag
from trtserve_client.load.errors import UsageError

_TYPES: dict[str, Any] = typing.get_type_hints(LoadConfig)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the model as a positional argument and a flag for every other field."""
    for field in dataclasses.fields(LoadConfig):
        kind, help = _TYPES[field.name], field.metadata["help"].replace("%", "%%")
        if field.name == "model":
            parser.add_argument("model", nargs="?", help=help)
            continue
        default = field.default if field.default not in ("", (), False, 0) else None
        keywords: dict[str, Any] = {"dest": field.name, "default": None}
        keywords["help"] = help + (f" (default {default})" if default is not None else "")
        if kind is bool:
            parser.add_argument(flag(field.name), action="store_true", **keywords)
            continue
        several = kind == tuple[str, ...] and field.name != "compare"
        metavar = field.metadata["metavar"] or "|".join(field.metadata["choices"]) or _metavar(kind)
        parser.add_argument(flag(field.name), action="append" if several else "store", metavar=metavar, **keywords)


def config_from_arguments(arguments: argparse.Namespace) -> LoadConfig:
    """The configuration that the flags write. Raises UsageError."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(LoadConfig)}
    return LoadConfig(
        **{name: _from_text(value, _TYPES[name], flag(name)) for name, value in given.items() if value is not None}
    )


def config_from_table(values: Mapping[str, Any], source: str, base: LoadConfig | None = None) -> LoadConfig:
    """The configuration of a table in a plan file, over `base`. Raises UsageError that names source and key."""
    changes = {}
    for key, value in values.items():
        if key not in _TYPES:
            raise UsageError(f"{source}: {key!r} is unknown{nearest(key, _TYPES)}")
        changes[key] = _from_plain(value, _TYPES[key], f"{source}: {key}")
    try:
        return dataclasses.replace(base or LoadConfig(), **changes)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like `name`, ready to be put behind "is unknown"."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names)}"


def _from_text(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_from_text(part.strip(), item, name) for part in value.split(",") if part.strip())
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise UsageError(f"{name} {value!r}: wanted is {wanted}") from None
    return value


def _from_plain(value: Any, kind: Any, where: str) -> Any:
    if typing.get_origin(kind) is tuple:
        values = value if isinstance(value, list) else [value]
        return tuple(_from_plain(each, typing.get_args(kind)[0], where) for each in values)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{where} = {value!r}: wanted is {kind.__name__}")
    return value


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return "N,N,..."
    return {int: "N", float: "NUMBER"}.get(kind, "TEXT")
