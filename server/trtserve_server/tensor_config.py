"""The parts of the configuration that speak of single tensors: what is said of them, and what a warm-up sends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from trtserve_engines.config import ConfigError, check_at_least, option

ZERO, RANDOM = "zero", "random"


@dataclass(frozen=True)
class TensorConfig:
    """What a configuration says of one input or output; it must agree with the ONNX graph."""

    name: str = option("", "the tensor's name in the graph")
    datatype: str = option("", "its datatype, for example FP32; empty = as in the graph")
    dims: tuple[int, ...] | None = option(None, "its shape without the batch dimension; absent = as in the graph")
    label_filename: str = option("", "file beside the configuration with one label per line, for classification")

    def __post_init__(self) -> None:
        check_inside("label_filename", self.label_filename)


@dataclass(frozen=True)
class WarmupInput:
    """One input of a warm-up request."""

    name: str = option("", "the input's name in the graph")
    datatype: str = option("", "its datatype, for example FP32; empty = as in the graph")
    dims: tuple[int, ...] | None = option(None, "its shape without the batch dimension; absent = as in the graph")
    data: str = option(RANDOM, "zero, random, or a file with its raw bytes in the folder `warmup` of the model's")

    def __post_init__(self) -> None:
        check_inside("data", self.data)


@dataclass(frozen=True)
class WarmupConfig:
    """A request that is run before the model is ready."""

    name: str = option("", "what it is called where it fails")
    batch_size: int = option(1, "its rows, where the model is batched")
    count: int = option(1, "how many times it is run per instance")
    inputs: tuple[WarmupInput, ...] = option((), "its tensors")

    def __post_init__(self) -> None:
        check_at_least(self, 0, "batch_size")
        check_at_least(self, 1, "count")


def check_inside(name: str, path: str) -> None:
    """A configuration may come over the wire: it may name files of its model and no others."""
    if PurePath(path).is_absolute() or ".." in PurePath(path).parts or "\0" in path:
        raise ConfigError(f"{name} = {path!r}; wanted is a path inside the model's folder")
