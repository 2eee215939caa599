"""Loads one version of a model: reads the graph, checks the configuration against it, opens the engine, decides
whether it can be batched. Runs on a thread of its own; touches nothing that is shared.
"""

from __future__ import annotations

import logging
import time
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trtserve_engines.batch_check import Batchability, check_batchable
from trtserve_engines.config import ConfigError
from trtserve_engines.engine import Engine, ExecutionContext
from trtserve_engines.errors import EngineError, ExecutionError, ModelFileError
from trtserve_engines.onnx_model import OnnxModel, read_onnx_model
from trtserve_engines.open_engine import open_engine
from trtserve_engines.samples import DYNAMIC_SIZES, sample_inputs
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec
from trtserve_protos import dtypes
from trtserve_protos.errors import DataTypeError
from trtserve_server.config import ServerConfig, TensorConfig
from trtserve_server.models.repository import CONFIG_FILES, ModelVersion
from trtserve_server.models.warmup import WarmupRequest, warmup_requests

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to get instances.

    `signature` is the engine's, with the sizes that the configuration fixes. `max_batch_size` is 0 where requests are
    never batched. `inline` says that a run is quicker than handing it to
    another thread, so that it is better run by the one that schedules.
    """

    source: ModelVersion
    engine: Engine
    signature: Signature
    max_batch_size: int
    batching_reason: str
    labels: Mapping[str, Sequence[str]]
    warmup: Sequence[WarmupRequest]
    instances: int
    inline: bool
    load_s: float


def load_model(source: ModelVersion, server: ServerConfig) -> LoadedModel:
    """Loads `source`. Raises EngineError with what is wrong and what to do."""
    start = time.monotonic()
    if source.problem:
        raise ModelFileError(source.problem)
    config = source.config
    model = read_onnx_model(source.path)
    _check_types(model)
    engine = open_engine(model, backend=server.backend, device=server.device, onnxruntime=config.onnxruntime)
    try:
        batch = _decide_batching(engine, config.max_batch_size)
        max_batch_size = (config.max_batch_size or server.default_max_batch_size) if batch.batched else 0
        signature = Signature(
            _agreed(config.inputs, engine.signature.inputs, "input", max_batch_size),
            _agreed(config.outputs, engine.signature.outputs, "output", max_batch_size),
        )
        labels = _read_labels(config.outputs, _config_folder(source))
        warmup = warmup_requests(config.warmup, signature, max_batch_size, _config_folder(source))
    except ConfigError as error:
        engine.close()
        raise ConfigError(f"{_config_file(source)}: {error}") from None
    except EngineError:
        engine.close()
        raise
    log.info("%s/%s: %s: %s", source.name, source.version, "batched" if batch.batched else "not batched", batch.reason)
    # An engine that can spread a run over the cores can also run as many batches side by side.
    instances = config.instances or server.instances or max(1, *engine.thread_choices, 1)
    inline = not (config.instances or server.instances) or instances == 1
    inline = inline and _is_quick(engine, model, max_batch_size, server.inline_run_limit_us / 1e6)
    seconds = time.monotonic() - start
    instances = 1 if inline else instances
    return LoadedModel(
        source, engine, signature, max_batch_size, batch.reason, labels, warmup, instances, inline, seconds
    )


def warm_up(context: ExecutionContext, signature: Signature, *, max_batch_size: int, runs: int) -> None:
    """Runs made-up inputs, alone and as the largest batch, `runs` times each. Raises ExecutionError."""
    dynamic = any(DYNAMIC in spec.shape[1:] for spec in signature.inputs)
    for size in DYNAMIC_SIZES if dynamic else DYNAMIC_SIZES[:1]:
        try:
            for _ in range(runs):
                for rows in {1, max(1, max_batch_size)}:
                    context.run([sample_inputs(signature, rows=rows, dynamic_size=size)])
            return
        except ExecutionError as error:
            failure = error
    raise ExecutionError(
        f"the warm-up with made-up inputs failed: {failure}."
        " If real inputs differ from them, set warmup_runs = 0 in model.toml"
    ) from failure


def _is_quick(engine: Engine, model: OnnxModel, max_batch_size: int, limit_s: float) -> bool:
    """Whether every run is sure to take less than `limit_s`: measured, and only where no input can change it."""
    tensors = (*model.signature.inputs, *model.signature.outputs)
    fixed = all(DYNAMIC not in (spec.shape[1:] if max_batch_size else spec.shape) for spec in tensors)
    if engine.device != "cpu" or not fixed or model.has_control_flow or limit_s == 0:
        return False
    context = engine.create_context(batched=max_batch_size > 0)
    try:
        for rows in (1, max(1, max_batch_size)):
            inputs = sample_inputs(engine.signature, rows=rows)
            if min(timeit.repeat(partial(context.run, [inputs]), number=1, repeat=3)) >= limit_s:
                return False
        return True
    except ExecutionError:
        return False  # made-up inputs do not fit; the warm-up says so
    finally:
        context.close()


def _decide_batching(engine: Engine, max_batch_size: int | None) -> Batchability:
    if max_batch_size is None:
        return check_batchable(engine)
    if max_batch_size == 0:
        return Batchability(False, "the configuration says so (max_batch_size = 0)")
    if not engine.signature.first_dimension_is_dynamic():
        shapes = ", ".join(
            f"{spec.name} {list(spec.shape)}" for spec in (*engine.signature.inputs, *engine.signature.outputs)
        )
        raise ConfigError(
            f"max_batch_size = {max_batch_size} needs inputs, and a dynamic first dimension everywhere;"
            f" the graph has {shapes if engine.signature.inputs else 'no inputs'}."
            " Set max_batch_size = 0 or export the model with a dynamic batch dimension"
        )
    return Batchability(True, f"the configuration says so (max_batch_size = {max_batch_size})")


def _check_types(model: OnnxModel) -> None:
    for spec in (*model.signature.inputs, *model.signature.outputs):
        try:
            dtypes.from_numpy(spec.dtype)
        except DataTypeError as error:
            raise ModelFileError(f"{model.path}: {spec.name!r} cannot be sent or received: {error}") from None


def _agreed(
    given: Sequence[TensorConfig], specs: Sequence[TensorSpec], kind: str, max_batch_size: int
) -> tuple[TensorSpec, ...]:
    """The graph's tensors with the sizes that the configuration fixes. Raises ConfigError where the two contradict."""
    by_name = {spec.name: spec for spec in specs}
    for tensor in given:
        spec = by_name.get(tensor.name)
        if spec is None:
            raise ConfigError(
                f"{kind} {tensor.name!r} is configured, but the graph has {', '.join(map(repr, by_name))}"
            )
        datatype = dtypes.from_numpy(spec.dtype).name
        if tensor.datatype and tensor.datatype != datatype:
            raise ConfigError(f"{kind} {spec.name!r}: {tensor.datatype} is configured, the graph has {datatype}")
        shape = spec.shape[1:] if max_batch_size else spec.shape
        if tensor.dims is not None and not _dims_agree(tensor.dims, shape):
            raise ConfigError(
                f"{kind} {spec.name!r}: dims {list(tensor.dims)} are configured, the graph has {list(shape)}"
                + (" behind its batch dimension" if max_batch_size else "")
            )
        if tensor.dims is not None:
            by_name[spec.name] = replace(spec, shape=_narrowed(spec.shape, tensor.dims))
    return tuple(by_name.values())


def _narrowed(shape: Sequence[int], dims: Sequence[int]) -> tuple[int, ...]:
    """The shape with sizes from `dims`, which stand at its end, where it has none itself."""
    first = len(shape) - len(dims)
    fixed = [dim if size == DYNAMIC else size for size, dim in zip(shape[first:], dims, strict=True)]
    return (*shape[:first], *fixed)


def _dims_agree(dims: Sequence[int], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(
        dim == size or DYNAMIC in (dim, size) for dim, size in zip(dims, shape, strict=True)
    )


def _config_folder(source: ModelVersion) -> Path:
    """The folder that label files are relative to: the model's, which holds its version folders."""
    return source.path.parent.parent


def _config_file(source: ModelVersion) -> Path:
    """What a mistake in the configuration is to be looked for in."""
    files = (_config_folder(source) / name for name in CONFIG_FILES)
    return next((file for file in files if file.exists()), source.path)


def _read_labels(outputs: Sequence[TensorConfig], folder: Path) -> dict[str, Sequence[str]]:
    labels: dict[str, Sequence[str]] = {}
    for tensor in outputs:
        if tensor.label_filename:
            path = folder / tensor.label_filename
            try:
                labels[tensor.name] = path.read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"output {tensor.name!r}: label file {path} cannot be read: {error}") from error
    return labels
