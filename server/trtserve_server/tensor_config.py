"""The parts of the configuration that speak of single tensors: what is said of them, and what a warm-up sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from trtserve_engines.config import ConfigError, check_at_least, option

ZERO, RANDOM = "zero", "random"
MAX_WARMUP_RUNS = 1000
MAX_DIMENSIONS = 31
"""Numpy's, of every version, less one for the batch."""


@dataclass(frozen=True)
class TensorConfig:
    """What a configuration says of one input or output; it must agree with the ONNX graph."""

    name: str = option("", "the tensor's name in the graph")
    datatype: str = option("", "its datatype, for example FP32; empty = as in the graph")
    dims: tuple[int, ...] | None = option(None, "its shape without the batch dimension; absent = as in the graph")
    reshape: tuple[int, ...] | None = option(None, "its shape in the graph, where that is another than dims")
    label_filename: str = option("", "file beside the configuration with one label per line, for classification")

    def __post_init__(self) -> None:
        check_inside("label_filename", self.label_filename)
        check_shape("dims", self.dims)
        check_shape("reshape", self.reshape)


@dataclass(frozen=True)
class WarmupInput:
    """One input of a warm-up request."""

    name: str = option("", "the input's name in the graph")
    datatype: str = option("", "its datatype, for example FP32; empty = as in the graph")
    dims: tuple[int, ...] | None = option(None, "its shape without the batch dimension; absent = as in the graph")
    data: str = option(RANDOM, "zero, random, or a file with its raw bytes in the folder `warmup` of the model's")

    def __post_init__(self) -> None:
        check_inside("data", self.data)
        check_shape("dims", self.dims)


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


def check_runs(made_up: int, requests: Sequence[WarmupConfig]) -> None:
    """Raises ConfigError for more runs than a model may have before it is ready.

    Nothing ends them, and those of a quick model on the CPU are the event loop's.
    """
    runs = made_up + sum(request.count for request in requests)
    if runs > MAX_WARMUP_RUNS:
        raise ConfigError(
            f"warmup_runs and the counts of warmup are {runs} runs together; a model may have at most {MAX_WARMUP_RUNS}"
        )


def check_shape(name: str, shape: Sequence[int] | None) -> None:
    """Raises ConfigError for what no tensor can have."""
    if shape is not None and (len(shape) > MAX_DIMENSIONS or any(size < -1 for size in shape)):
        shown = f"{list(shape[:MAX_DIMENSIONS])}" + (" ..." if len(shape) > MAX_DIMENSIONS else "")
        raise ConfigError(
            f"{name} = {shown}; wanted are at most {MAX_DIMENSIONS} sizes of 0 or more, or -1 where any size goes"
        )


def check_inside(name: str, path: str) -> None:
    """A configuration may come over the wire: it may name files of its model and no others."""
    if PurePath(path).is_absolute() or ".." in PurePath(path).parts or "\0" in path:
        raise ConfigError(f"{name} = {path!r}; wanted is a path inside the model's folder")
