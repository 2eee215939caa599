"""From a model, a backend and a device to an engine. Which backend, `backend_choice.py` says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from trtserve_engines.backend_choice import choose_backend
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import Engine
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.cache_options import CacheOptions
from trtserve_engines.tensorrt.step import Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """How each backend is to execute a model; `cuda_driver` is one of CUDA_DRIVERS."""

    onnxruntime: OnnxRuntimeOptions = field(default_factory=OnnxRuntimeOptions)
    tensorrt: BuildConfig = field(default_factory=BuildConfig)
    cache: CacheOptions = field(default_factory=CacheOptions)
    cuda_driver: str = "auto"


class OpenedEngine(NamedTuple):
    """An engine, and facts about it for those who ask: names and texts."""

    engine: Engine
    facts: Mapping[str, str]


def open_engine(
    model: OnnxModel,
    *,
    backend: str = "auto",
    device: str = "auto",
    onnxruntime: OnnxRuntimeOptions | None = None,
    options: EngineOptions | None = None,
) -> Engine:
    """Loads the model by the fallback rule, on the first GPU where several are meant. Raises EngineError."""
    options = options or EngineOptions(onnxruntime or OnnxRuntimeOptions())
    choice = choose_backend(backend, device, look_at_machine(options.cuda_driver))
    log.debug("%s: backend %s on %s, because %s", model.path, choice.backend, choice.device, choice.reason)
    opened = open_on(model, choice.backend, choice.gpus[0] if choice.gpus else None, options, Watch())
    return opened.engine


def open_on(model: OnnxModel, backend: str, gpu: int | None, options: EngineOptions, watch: Watch) -> OpenedEngine:
    """Loads the model with one backend on one GPU, or on the CPU (None). A TensorRT engine may have to be built first.

    Raises EngineError; EngineNotBuiltError where it would have to be built and `watch` does not allow it.
    """
    if backend == "tensorrt":
        # Imported here because they load what only this backend needs.
        from trtserve_engines.tensorrt.open_tensorrt import open_tensorrt

        assert gpu is not None
        return OpenedEngine(*open_tensorrt(model, gpu, options.tensorrt, options.cache, options.cuda_driver, watch))
    from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine

    return OpenedEngine(OnnxRuntimeEngine.load(model, options.onnxruntime, gpu=gpu), {})
