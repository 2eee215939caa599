"""Derives flags and the reading of values from configuration dataclasses, so that an option is written once."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from trtserve_engines.config import ConfigError

C = TypeVar("C")

ENVIRONMENT_PREFIX = "TRTSERVE_"

_LONGEST_MISTAKE = 200
"""Characters of a name to which known ones are compared: each is indexed, and a client's name may fill its message."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One leaf of a configuration: `path` leads to it through nested dataclasses."""

    path: tuple[str, ...]
    type: Any
    default: Any
    help: str
    choices: tuple[str, ...]

    @property
    def flag(self) -> str:
        """The option on the command line: in the singular where each item of a list gets a flag of its own."""
        name = "-".join(self.path).replace("_", "-")
        return "--" + (name.removesuffix("s") if self.is_text_list else name)

    @property
    def variable(self) -> str:
        """The option in the environment."""
        return ENVIRONMENT_PREFIX + "_".join(self.path).upper()

    @property
    def is_text_list(self) -> bool:
        """Whether it is a list of texts."""
        return bool(self.type == tuple[str, ...])

    @property
    def metavar(self) -> str:
        """What stands for the value in a help text."""
        name = self.path[-1].rpartition("_")[2].upper()
        return "|".join(self.choices) or (name.removesuffix("S") if self.is_text_list else name)


def options_of(cls: type, path: tuple[str, ...] = ()) -> Iterator[Option]:
    """Every leaf option of the dataclass `cls`, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        where = (*path, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            yield from options_of(hints[field.name], where)
        else:
            metadata = field.metadata
            yield Option(where, hints[field.name], field.default, metadata["help"], metadata.get("choices", ()))


def build(cls: type[C], values: Mapping[str, Any], source: str) -> C:
    """An instance of the dataclass `cls` from nested mappings. Raises ConfigError that names `source` and the key."""
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(f"{source}: {key!r} is unknown{nearest(key, hints)}")
        arguments[key] = _convert(value, hints[key], f"{source}: {key}")
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that begins with `name` or is most like it, ready to be put behind "is unknown"."""
    names = list(known)
    name = name[:_LONGEST_MISTAKE]
    longer = [other for other in names if name and other.startswith(name)]
    close = difflib.get_close_matches(name, longer or names, n=1, cutoff=0.0 if longer else 0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(names))}"


def put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Sets a value in nested mappings, which are made as needed."""
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def add_arguments(parser: argparse.ArgumentParser, cls: type, *, positional: str = "") -> None:
    """Adds a flag for every option of `cls`; the one called `positional` takes the words without a flag."""
    for option in options_of(cls):
        if option.path == (positional,):
            parser.add_argument("/".join(option.path), nargs="*", metavar="MODEL.onnx", help=option.help)
            continue
        default = f" (default {text_of(option.default)})" if option.default not in ("", ()) else ""
        keywords: dict[str, Any] = {"dest": "/".join(option.path), "help": option.help.replace("%", "%%") + default}
        if option.type is bool:
            parser.add_argument(option.flag, action=argparse.BooleanOptionalAction, default=None, **keywords)
        else:
            action = "append" if option.is_text_list else "store"
            parser.add_argument(option.flag, action=action, default=None, metavar=option.metavar, **keywords)


def from_arguments(cls: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """Nested values of the flags that were given."""
    values: dict[str, Any] = {}
    for option in options_of(cls):
        given = getattr(arguments, "/".join(option.path))
        if given is None or given == []:
            continue
        value = parse_text(given, option.type, option.flag) if isinstance(given, str) else given
        put(values, option.path, value)
    return values


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one; later layers win, key by key."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
                result[key] = merged(result[key], value)
            else:
                result[key] = value
    return result


def parse_text(text: str, kind: Any, name: str) -> Any:
    """The value that `text` writes for an option of type `kind`: lists have commas, booleans are true or false."""
    text = text.strip()
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ConfigError(f"{name} = {text!r}; wanted is true or false")
        return text.lower() in ("true", "1")
    if typing.get_origin(kind) is tuple:
        items = [item.strip() for item in text.split(",") if item.strip()]
        return [parse_text(item, typing.get_args(kind)[0], name) for item in items]
    for number in (int, float):
        if kind is number or (number is int and kind == int | None):
            try:
                return number(text)
            except ValueError:
                wanted = "a whole number" if number is int else "a number"
                raise ConfigError(f"{name} = {text!r}; wanted is {wanted}") from None
    return text


def as_mapping(config: Any) -> dict[str, Any]:
    """The configuration as nested plain values, without what is absent."""
    return {
        field.name: as_mapping(value) if dataclasses.is_dataclass(value) else _plain(value)
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) is not None
    }


def toml_key(name: str) -> str:
    """A name as a key of TOML."""
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def text_of(value: Any) -> str:
    """A plain value in TOML's form."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(key)} = {text_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text_of(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool)) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [as_mapping(item) if dataclasses.is_dataclass(item) else item for item in value]
    return value


def _convert(value: Any, kind: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} = {value!r}; wanted is a table of options")
        return build(typing.cast(type, kind), value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} = {value!r}; wanted is a list")
        return tuple(_convert(item, typing.get_args(kind)[0], where) for item in value)
    if typing.get_origin(kind) is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} = {value!r}; wanted is a table of names")
        return {key: _convert(item, typing.get_args(kind)[1], f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value, where)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where} = {value!r}; wanted is {kind.__name__}, given is {type(value).__name__}")
    return value


def _as_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{where} is a number of {value.bit_length()} bits; wanted is one that fits 64") from None
