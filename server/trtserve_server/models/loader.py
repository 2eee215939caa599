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
from typing import NamedTuple, cast

from trtserve_engines.batch_check import Batchability, check_batchable
from trtserve_engines.config import ConfigError
from trtserve_engines.engine import Engine
from trtserve_engines.errors import (
    EngineError,
    EngineNotBuiltError,
    ExecutionError,
    ModelFileError,
)
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_engines.onnx_model import OnnxModel, read_onnx_model
from trtserve_engines.open_engine import open_engine
from trtserve_engines.regular_file import read_regular
from trtserve_engines.samples import sample_inputs
from trtserve_engines.script import ScriptConfig, engine_from_script
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec, shapes_agree
from trtserve_engines.step import Watch
from trtserve_engines.tensorrt.cache_options import CacheOptions
from trtserve_engines.tensorrt.plugins import check_allowed
from trtserve_engines.tensorrt.tensorrt_options import TensorRtOptions
from trtserve_protos import dtypes
from trtserve_protos.errors import DataTypeError
from trtserve_server.config import ModelConfig, ServerConfig, TensorConfig
from trtserve_server.models.placement import place
from trtserve_server.models.repository import CONFIG_FILES, ModelVersion
from trtserve_server.models.warmup import WarmupRequest, warmup_requests

log = logging.getLogger(__name__)


class PlacedEngine(NamedTuple):
    """An engine and the number of its instances."""

    engine: Engine
    instances: int


@dataclass(frozen=True)
class OpenedModel:
    """A model's engines, one per device, and facts about them for those who ask."""

    engines: tuple[PlacedEngine, ...]
    facts: Mapping[str, str]

    def close(self) -> None:
        """Frees every engine; their contexts are closed before."""
        for placed in self.engines:
            placed.engine.close()


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to get instances: so many of each engine.

    `signature` is the engine's, with the sizes that the configuration fixes. `max_batch_size` is 0 where requests are
    never batched. `inline` says that a run is quicker than handing it to another thread, so that it is better run by
    the one that schedules. `awaits_engine` says that this serves only until the model's TensorRT engine is built.
    """

    source: ModelVersion
    opened: OpenedModel
    signature: Signature
    max_batch_size: int
    batching_reason: str
    labels: Mapping[str, Sequence[str]]
    warmup: Sequence[WarmupRequest]
    inline: bool
    load_s: float
    awaits_engine: bool = False

    @property
    def engine(self) -> Engine:
        """One of its engines, which differ in nothing but their device."""
        return self.opened.engines[0].engine

    @property
    def instances(self) -> int:
        """How many batches may run at the same time, on all devices."""
        return sum(placed.instances for placed in self.opened.engines)


def load_model(source: ModelVersion, server: ServerConfig, watch: Watch) -> LoadedModel:
    """Loads `source`. Raises EngineError with what is wrong and what to do.

    Where a TensorRT engine would have to be built first and `watch` does not allow it, the CPU serves meanwhile, if
    the server's configuration says so; else EngineNotBuiltError is raised.
    """
    if source.problem:
        raise ModelFileError(source.problem)
    start = time.monotonic()
    if source.config.response_cache and not server.response_cache_bytes:
        log.warning("%s: response_cache = true has no effect, as the server's response_cache_bytes is 0", source.name)
    if source.script:
        return _finish(source, server, None, _scripted(source.script, source.config, server), start, False)
    model = read_onnx_model(source.path)
    _check_types(model)
    awaits_engine = False
    try:
        try:
            opened = _open_model(model, source.config, server, watch)
        except EngineNotBuiltError as error:
            if server.while_building == "wait":
                raise
            log.info("%s/%s: served on the CPU while its engine is built: %s", source.name, source.version, error)
            opened = _open_model(model, _on_cpu(source.config), server, watch)
            awaits_engine = True
        return _finish(source, server, model, opened, start, awaits_engine)
    except ConfigError as error:
        raise ConfigError(f"{_config_file(source)}: {error}") from None


def _scripted(script: ScriptConfig, config: ModelConfig, server: ServerConfig) -> OpenedModel:
    engine = cast(Engine, engine_from_script(script))
    return OpenedModel((PlacedEngine(engine, config.instances or server.instances),), {"backend_reason": "a script"})


def _finish(
    source: ModelVersion,
    server: ServerConfig,
    model: OnnxModel | None,
    opened: OpenedModel,
    start: float,
    awaits_engine: bool,
) -> LoadedModel:
    """Decides on batching and checks the configuration; closes what was opened where that fails."""
    config, engine = source.config, opened.engines[0].engine
    try:
        batch = _decide_batching(engine, config.max_batch_size)
        max_batch_size = _max_batch_size(engine, config.max_batch_size, server) if batch.batched else 0
        signature = Signature(
            _agreed(config.inputs, engine.signature.inputs, "input", max_batch_size),
            _agreed(config.outputs, engine.signature.outputs, "output", max_batch_size),
        )
        labels = read_labels(source)
        warmup = warmup_requests(config.warmup, signature, max_batch_size, _config_folder(source))
    except EngineError:
        opened.close()
        raise
    log.info("%s/%s: %s: %s", source.name, source.version, "batched" if batch.batched else "not batched", batch.reason)
    automatic = all(placed.instances == 0 for placed in opened.engines)
    inline = automatic or sum(placed.instances for placed in opened.engines) == 1
    # A script waits, so it never runs on the loop.
    inline = inline and model is not None and _is_quick(engine, model, max_batch_size, server.inline_run_limit_us / 1e6)
    opened = replace(opened, engines=tuple(_counted(placed, inline=inline) for placed in opened.engines))
    seconds = time.monotonic() - start
    return LoadedModel(
        source, opened, signature, max_batch_size, batch.reason, labels, warmup, inline, seconds, awaits_engine
    )


def _counted(placed: PlacedEngine, *, inline: bool) -> PlacedEngine:
    """The engine with its number of instances, where that was left open."""
    # An engine that can spread a run over the cores can also run as many batches side by side.
    suitable = 1 if inline else max(1, *placed.engine.thread_choices, 1)
    return placed._replace(instances=placed.instances or suitable)


def _open_model(model: OnnxModel, config: ModelConfig, server: ServerConfig, watch: Watch) -> OpenedModel:
    """Opens what the instances of the model need. Raises EngineError, and leaves nothing open then."""
    placement = place(config, server, look_at_machine(server.cuda_driver))
    log.info("%s: backend %s, because %s", model.path, placement.backend, placement.reason)
    engines: list[PlacedEngine] = []
    facts = {"backend_reason": placement.reason}
    try:
        for gpu, instances in placement.instances.items():
            engine = open_engine(
                model,
                backend=placement.backend,
                device="cpu" if gpu is None else f"gpu:{gpu}",
                onnxruntime=config.onnxruntime,
                tensorrt=_tensorrt_options(config, server, instances or 1),
                watch=watch,
            )
            engines.append(PlacedEngine(engine, instances))
            facts |= engine.facts
    except BaseException:
        OpenedModel(tuple(engines), {}).close()
        raise
    return OpenedModel(tuple(engines), facts)


def _tensorrt_options(config: ModelConfig, server: ServerConfig, instances: int) -> TensorRtOptions:
    """How the engine is built: profiles follow from the batches. Raises ConfigError for code that is not allowed."""
    check_allowed(config.tensorrt, server.tensorrt)
    largest = config.max_batch_size or server.default_max_batch_size
    preferred = max(config.batching.preferred_batch_sizes, default=0)
    tensorrt = replace(config.tensorrt, max_batch_size=largest, preferred_batch_size=min(preferred, largest))
    cache = CacheOptions(server.engine_cache, server.engine_cache_max_bytes, server.engine_cache_key)
    return TensorRtOptions(tensorrt, cache, server.cuda_driver, instances)


def _on_cpu(config: ModelConfig) -> ModelConfig:
    return replace(config, backend="onnxruntime", device="cpu", instance_groups=())


def _max_batch_size(engine: Engine, configured: int | None, server: ServerConfig) -> int:
    """The configured size, or the server's; no more than the engine was built for."""
    if engine.max_rows is None:
        return configured or server.default_max_batch_size
    if configured and configured > engine.max_rows:
        raise ConfigError(
            f"max_batch_size = {configured}, but the profiles of the TensorRT engine end at {engine.max_rows} rows;"
            " give profiles that go as far, or none"
        )
    return configured or min(server.default_max_batch_size, engine.max_rows)


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
        if tensor.dims is not None and not shapes_agree(tensor.dims, shape):
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


def _config_folder(source: ModelVersion) -> Path:
    """The folder that label files are relative to: the model's, which holds its version folders."""
    return source.path.parent.parent


def _config_file(source: ModelVersion) -> Path:
    """What a mistake in the configuration is to be looked for in."""
    files = (_config_folder(source) / name for name in CONFIG_FILES)
    return next((file for file in files if file.exists()), source.path)


def read_labels(source: ModelVersion) -> dict[str, Sequence[str]]:
    """The labels of each output that has a file of them. Raises ConfigError."""
    outputs, folder = source.config.outputs, _config_folder(source)
    labels: dict[str, Sequence[str]] = {}
    for tensor in outputs:
        if tensor.label_filename:
            path = folder / tensor.label_filename
            try:
                labels[tensor.name] = read_regular(path).decode().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"output {tensor.name!r}: label file {path} cannot be read: {error}") from error
    return labels
