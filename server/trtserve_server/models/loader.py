"""Loads one version of a model: opens its engines and completes what its configuration says from the graph.

Runs on a thread of its own; touches nothing that is shared.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from trtserve_engines.config import ConfigError
from trtserve_engines.engine import Engine
from trtserve_engines.errors import EngineNotBuiltError, ModelFileError
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_engines.onnx_model import OnnxModel, read_onnx_model
from trtserve_engines.open_engine import open_engine
from trtserve_engines.script import ScriptConfig, engine_from_script
from trtserve_engines.signature import Signature
from trtserve_engines.step import Watch
from trtserve_engines.tensorrt.cache_options import CacheOptions
from trtserve_engines.tensorrt.plugins import check_allowed
from trtserve_engines.tensorrt.tensorrt_options import TensorRtOptions
from trtserve_server.config import ModelConfig, ServerConfig
from trtserve_server.models.agreement import agreed_signature, check_types
from trtserve_server.models.batch_cost import fixed_rows_of
from trtserve_server.models.batching import decide_batching
from trtserve_server.models.inline import quick_rows
from trtserve_server.models.labels import read_labels
from trtserve_server.models.placement import place
from trtserve_server.models.repository import ModelVersion, config_file
from trtserve_server.models.reshape import reshaped
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
    never batched. Up to `inline_rows` rows a run is quicker than handing it to another thread, so that it is better run
    by the one that schedules. `fixed_rows` is what a batch costs beside its rows, in rows; infinity where it is not
    known. `awaits_engine` says that this serves only until the model's TensorRT engine is built.
    """

    source: ModelVersion
    opened: OpenedModel
    signature: Signature
    max_batch_size: int
    batching_reason: str
    labels: Mapping[str, Sequence[str]]
    warmup: Sequence[WarmupRequest]
    inline_rows: int
    fixed_rows: float
    load_s: float
    awaits_engine: bool = False

    @property
    def engine(self) -> Engine:
        """One of its engines, which differ in nothing but their device."""
        return self.opened.engines[0].engine

    @property
    def inline(self) -> bool:
        """Whether every run is one that the scheduling thread makes."""
        return self.inline_rows >= max(1, self.max_batch_size)

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
    check_types(model)
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
        raise ConfigError(f"{config_file(source)}: {error}") from None


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
    """Decides what was left open and checks the configuration; closes what was opened where that fails."""
    config, engine = source.config, opened.engines[0].engine
    try:
        max_batch_size, reason = decide_batching(engine, config.max_batch_size, server)
        signature = agreed_signature(config, engine.signature, max_batch_size)
        labels = read_labels(source)
        warmup = warmup_requests(config.warmup, signature, max_batch_size, source.folder)
        inline_rows = _inline_rows(opened, model, max_batch_size, server)
        fixed_rows = math.inf if inline_rows else _fixed_rows(engine, model, max_batch_size, config)
    except BaseException:
        opened.close()
        raise
    log.info("%s/%s: %s: %s", source.name, source.version, "batched" if max_batch_size else "not batched", reason)
    if fixed_rows != math.inf:
        log.info("%s/%s: a batch costs as much as %.2g rows beside its own", source.name, source.version, fixed_rows)
    loaded = LoadedModel(
        source=source,
        opened=opened,
        signature=signature,
        max_batch_size=max_batch_size,
        batching_reason=reason,
        labels=labels,
        warmup=warmup,
        inline_rows=inline_rows,
        fixed_rows=fixed_rows,
        load_s=time.monotonic() - start,
        awaits_engine=awaits_engine,
    )
    counted = tuple(_counted(placed, inline=loaded.inline) for placed in opened.engines)
    return replace(loaded, opened=replace(opened, engines=counted))


def _inline_rows(opened: OpenedModel, model: OnnxModel | None, max_batch_size: int, server: ServerConfig) -> int:
    # A script waits, and who asks for several instances wants runs side by side: neither is for the loop.
    if model is None or sum(placed.instances for placed in opened.engines) > 1:
        return 0
    return quick_rows(opened.engines[0].engine, model, max_batch_size, server.inline_run_limit_us / 1e6)


def _fixed_rows(engine: Engine, model: OnnxModel | None, max_batch_size: int, config: ModelConfig) -> float:
    # Who names sizes or a delay wants batches, whatever they gain.
    wanted = config.batching.preferred_batch_sizes or config.batching.max_queue_delay_us
    return math.inf if wanted or model is None else fixed_rows_of(engine, model, max_batch_size)


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
        engines = [placed._replace(engine=reshaped(placed.engine, config)) for placed in engines]
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
