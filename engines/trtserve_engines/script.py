"""A script for a model without a file: its tensors, how long batches take, which fail. Words to a ScriptedEngine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from trtserve_engines.config import ConfigError, check_at_least, option
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

_FORM = "NAME:option=value:..., for example slow:latency_ms=20:shape=-1x16"
_TYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool")


@dataclass(frozen=True)
class ScriptConfig:
    """What a scripted model does: it answers its input x as its output y."""

    name: str = option("", "the model's name")
    latency_ms: tuple[float, ...] = option((0.0,), "time of a batch; several, with / between, are taken in turn")
    row_ms: float = option(0.0, "time that each row of a batch adds")
    stall_batch: int = option(0, "number of the batch, from 1, that stalls once; 0 = none")
    stall_ms: float = option(500.0, "how much longer that batch takes")
    fail_every: int = option(0, "every n-th batch fails; 0 = none does")
    shape: str = option("-1x16", "shape of x and y, -1 for any size, with x between sizes")
    type: str = option("float32", "type of x and y", choices=_TYPES)
    max_batch_size: int = option(8, "rows in a batch; 0 = never batch")
    instances: int = option(1, "batches that may run at the same time")

    def __post_init__(self) -> None:
        if not self.name or not re.fullmatch(r"[\w.-]+", self.name):
            raise ConfigError(f"name = {self.name!r}; wanted are letters, digits, and any of . _ -")
        if not self.latency_ms or not all(0 <= each < float("inf") for each in self.latency_ms):
            raise ConfigError(f"latency_ms = {list(self.latency_ms)}; wanted are times of at least 0")
        check_at_least(self, 0, "row_ms", "stall_batch", "stall_ms", "fail_every", "max_batch_size")
        check_at_least(self, 1, "instances")
        if self.type not in _TYPES:
            raise ConfigError(f"type = {self.type!r}; wanted is one of {', '.join(_TYPES)}")
        if not re.fullmatch(r"(-1|[1-9]\d*)(x(-1|[1-9]\d*))*", self.shape):
            raise ConfigError(f"shape = {self.shape!r}; wanted are sizes with x between them, for example -1x16")
        if self.max_batch_size and self.sizes[0] != DYNAMIC:
            raise ConfigError(
                f"max_batch_size = {self.max_batch_size} needs a shape that begins with -1, given is {self.shape};"
                " write max_batch_size=0 for a model that is not batched"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of x and y."""
        return tuple(map(int, self.shape.split("x")))


def parse_script(text: str) -> ScriptConfig:
    """The script that `text` writes as NAME:option=value:.... Raises ConfigError that names it."""
    try:
        return _parsed(text)
    except ConfigError as error:
        raise ConfigError(f"scripted = {text!r}: {error}") from None


def _parsed(text: str) -> ScriptConfig:
    name, *words = text.split(":")
    values: dict[str, Any] = {"name": name}
    known = {field.name: field.default for field in fields(ScriptConfig)}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in known:
            raise ConfigError(f"{word!r} is unknown; wanted is {_FORM}; options are {', '.join(known)}")
        try:
            values[key] = _converted(value, known[key])
        except ValueError:
            raise ConfigError(f"{key} = {value!r}; wanted is a number; the form is {_FORM}") from None
    return ScriptConfig(**values)


def engine_from_script(script: ScriptConfig) -> ScriptedEngine:
    """The engine that follows the script."""
    dtype = np.dtype(script.type)
    signature = Signature((TensorSpec("x", dtype, script.sizes),), (TensorSpec("y", dtype, script.sizes),))
    return ScriptedEngine(
        signature,
        lambda inputs: {"y": inputs["x"].copy()},
        latency_s=_latencies(script),
        failure=lambda number: _failure(script, number),
        max_rows=script.max_batch_size or None,
    )


def _latencies(script: ScriptConfig) -> Callable[[int], float]:
    turn = itertools.cycle(script.latency_ms)
    numbers = itertools.count(1)

    def latency_s(rows: int) -> float:
        stalls = next(numbers) == script.stall_batch
        return (next(turn) + rows * script.row_ms + stalls * script.stall_ms) / 1e3

    return latency_s


def _failure(script: ScriptConfig, number: int) -> Exception | None:
    fails = script.fail_every and (number + 1) % script.fail_every == 0
    return RuntimeError(f"fail_every = {script.fail_every}") if fails else None


def _converted(text: str, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(float(part) for part in text.split("/"))
    return type(default)(text)
