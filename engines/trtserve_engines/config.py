"""How models are to be executed: frozen options that check themselves.

Each field carries its help text, so that command lines, files and documents can be derived from it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from trtserve_engines.errors import EngineError

BACKENDS = ("auto", "tensorrt", "onnxruntime")
GRAPH_OPTIMIZATION_LEVELS = ("disabled", "basic", "extended", "all")
EXECUTION_MODES = ("sequential", "parallel")


class ConfigError(EngineError, ValueError):
    """A setting that is unknown, out of range or at odds with another."""


def option(default: Any, help: str, *, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with its help text and, where it has them, its choices."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def same_option(config: type, name: str) -> Any:
    """A field with the default, help text and choices of the field `name` of the dataclass `config`."""
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    return dataclasses.field(default=field.default, metadata=field.metadata)


def mapping(help: str) -> Any:
    """A dataclass field for names to names, empty by default."""
    return dataclasses.field(default_factory=dict, metadata={"help": help, "choices": ()})


def check_choices(config: Any) -> None:
    """Raises ConfigError where a field of the dataclass instance `config` is not one of its choices."""
    for field in dataclasses.fields(config):
        choices = field.metadata.get("choices", ())
        value = getattr(config, field.name)
        if choices and value not in choices:
            raise ConfigError(f"{field.name} = {value!r}; wanted is one of {', '.join(choices)}")


def check_at_least(config: Any, minimum: int, *names: str) -> None:
    """Raises ConfigError where one of the named fields is below `minimum`."""
    for name in names:
        value = getattr(config, name)
        if not value >= minimum:  # so that NaN is refused too
            raise ConfigError(f"{name} = {value}; it must be at least {minimum}")


MAX_THREADS = 1024
"""Of one model. ONNX Runtime makes as many as it is told to, and the machine stands still meanwhile."""


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How ONNX Runtime executes a model."""

    intra_op_threads: int = option(0, "threads within one operator; 0 = as many as cores")
    inter_op_threads: int = option(0, "threads across operators, used in parallel execution mode; 0 = automatic")
    graph_optimization_level: str = option(
        "all", "how far the graph is rewritten at load", choices=GRAPH_OPTIMIZATION_LEVELS
    )
    execution_mode: str = option("sequential", "operators one after another or in parallel", choices=EXECUTION_MODES)
    memory_arena: bool = option(True, "keep freed memory in ONNX Runtime's arena for the next run")
    memory_pattern: bool = option(True, "plan memory once per input shape")
    spinning: bool = option(False, "idle threads spin for work: faster on cores of their own, wasteful on shared ones")

    tf32: bool = option(True, "on a GPU, FP32 matrix products may use TensorFloat-32 (10 bits of mantissa)")

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, 0, "intra_op_threads", "inter_op_threads")
        for name in ("intra_op_threads", "inter_op_threads"):
            if getattr(self, name) > MAX_THREADS:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at most {MAX_THREADS}")
