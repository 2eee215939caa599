"""Opens the engines of a model where its instances are to be: one per device. Decides nothing about batching."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trtserve_engines.engine import Engine
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.open_engine import EngineOptions, open_on
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.cache_options import CacheOptions
from trtserve_engines.tensorrt.step import Watch
from trtserve_server.config import ModelConfig, ServerConfig
from trtserve_server.models.placement import place

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


def open_model(model: OnnxModel, config: ModelConfig, server: ServerConfig, watch: Watch) -> OpenedModel:
    """Opens what the instances of the model need. Raises EngineError, and leaves nothing open then."""
    placement = place(config, server, look_at_machine(server.cuda_driver))
    options = engine_options(config, server)
    engines: list[PlacedEngine] = []
    facts: dict[str, str] = {"backend_reason": placement.reason}
    try:
        for gpu, instances in placement.instances.items():
            opened = open_on(model, placement.backend, gpu, options, watch)
            engines.append(PlacedEngine(opened.engine, instances))
            facts |= opened.facts
    except BaseException:
        OpenedModel(tuple(engines), {}).close()
        raise
    log.info("%s: backend %s, because %s", model.path, placement.backend, placement.reason)
    return OpenedModel(tuple(engines), facts)


def engine_options(config: ModelConfig, server: ServerConfig) -> EngineOptions:
    """How each backend is to execute the model; TensorRT's profiles follow from the batches."""
    cache = CacheOptions(server.engine_cache, server.engine_cache_max_bytes, server.engine_cache_key)
    return EngineOptions(config.onnxruntime, _build_config(config, server), cache, server.cuda_driver)


def _build_config(config: ModelConfig, server: ServerConfig) -> BuildConfig:
    largest = config.max_batch_size or server.default_max_batch_size
    preferred = max(config.batching.preferred_batch_sizes, default=0)
    return dataclasses.replace(config.tensorrt, max_batch_size=largest, preferred_batch_size=min(preferred, largest))
