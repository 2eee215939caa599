"""Warm-up: runs with made-up inputs, and the requests that a model's configuration gives, checked against the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trtserve_engines.config import ConfigError
from trtserve_engines.engine import Engine, ExecutionContext
from trtserve_engines.errors import DeviceLostError, ExecutionError, SignatureError
from trtserve_engines.regular_file import read_regular
from trtserve_engines.samples import sample_inputs
from trtserve_engines.shape_ranges import example_inputs
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec
from trtserve_protos import dtypes
from trtserve_protos.errors import ProtocolError
from trtserve_protos.tensors import array_from_raw
from trtserve_server.config import MAX_MESSAGE_BYTES, RANDOM, ZERO, WarmupConfig, WarmupInput
from trtserve_server.models.input_checks import wire_name
from trtserve_server.models.repository import DATA_FOLDER


@dataclass(frozen=True)
class WarmupRequest:
    """Tensors that are run `count` times."""

    name: str
    inputs: Mapping[str, np.ndarray]
    count: int

    def run(self, context: ExecutionContext) -> None:
        """Runs them. Raises ExecutionError that names the request."""
        try:
            for _ in range(self.count):
                context.run([self.inputs])
        except ExecutionError as error:
            raise ExecutionError(f"the warm-up request {self.name!r} failed: {error}") from error


def warm_up(context: ExecutionContext, engine: Engine, signature: Signature, *, max_batch_size: int, runs: int) -> None:
    """Runs made-up inputs, alone and as the largest batch, `runs` times each: of one shape, or of each that the engine
    was built for. Raises ExecutionError where none can be run.
    """
    done: set[int] = set()
    failure: Exception | None = None
    for rows in sorted({1, max(1, max_batch_size)}):
        for inputs in example_inputs(signature, engine.shape_ranges, rows):
            if rows in done and not engine.shape_ranges:
                break
            try:
                for _ in range(runs):
                    context.run([inputs])
                done.add(rows)
            except DeviceLostError:
                raise
            except (ExecutionError, SignatureError) as error:
                failure = failure or error
    wanted = 1 if engine.shape_ranges else len({1, max(1, max_batch_size)})
    if len(done) < wanted:
        raise ExecutionError(
            f"the warm-up with made-up inputs failed: {failure}."
            " If real inputs differ from them, set warmup_runs = 0 in model.toml"
        ) from failure


def warmup_requests(
    configs: Sequence[WarmupConfig], signature: Signature, max_batch_size: int, folder: Path
) -> tuple[WarmupRequest, ...]:
    """The requests for a model whose files lie in `folder`. Raises ConfigError where one does not fit the model."""
    return tuple(_request(config, signature, max_batch_size, folder) for config in configs)


def _request(config: WarmupConfig, signature: Signature, max_batch_size: int, folder: Path) -> WarmupRequest:
    if config.batch_size > max(1, max_batch_size):
        raise ConfigError(
            f"warmup {config.name!r}: batch_size = {config.batch_size} is above max_batch_size = {max_batch_size}"
        )
    rows = (max(1, config.batch_size),) if max_batch_size else ()
    specs = signature.input_by_name
    try:
        inputs = {tensor.name: _array(tensor, specs.get(tensor.name), rows, folder) for tensor in config.inputs}
        signature.check(inputs, wire_name)
    except (SignatureError, ProtocolError) as error:
        raise ConfigError(f"warmup {config.name!r}: {error}") from None
    return WarmupRequest(config.name, inputs, config.count)


def _array(tensor: WarmupInput, spec: TensorSpec | None, rows: tuple[int, ...], folder: Path) -> np.ndarray:
    if spec is None:
        raise ConfigError(f"the model has no input {tensor.name!r}")
    datatype = dtypes.from_name(tensor.datatype) if tensor.datatype else dtypes.from_numpy(spec.dtype)
    dims = spec.shape[len(rows) :] if tensor.dims is None else tensor.dims
    if DYNAMIC in dims:
        raise ConfigError(f"input {tensor.name!r} has dims {list(dims)}; wanted are those of one request, without -1")
    shape = (*rows, *dims)
    if math.prod(shape) * datatype.numpy.itemsize > MAX_MESSAGE_BYTES:
        raise ConfigError(f"input {tensor.name!r} with shape {list(shape)} is larger than any request can be")
    if tensor.data == RANDOM:
        sample = Signature((TensorSpec(tensor.name, datatype.numpy, shape),), ())
        return sample_inputs(sample)[tensor.name]
    if tensor.data == ZERO:
        return np.full(shape, b"", object) if datatype.numpy.kind == "O" else np.zeros(shape, datatype.numpy)
    path = folder / DATA_FOLDER / tensor.data
    try:
        return array_from_raw(read_regular(path), datatype, shape)
    except OSError as error:
        raise ConfigError(f"input {tensor.name!r}: {path} cannot be read: {error.strerror}") from error
