"""From a model to its TensorRT engine on one GPU, ready to run, with what there is to say of it."""

from __future__ import annotations

import os

from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.step import Watch
from trtserve_engines.tensorrt.provide import ProvidedEngine, provide_engine
from trtserve_engines.tensorrt.runtime import TensorRtEngine
from trtserve_engines.tensorrt.tensorrt_options import TensorRtOptions
from trtserve_engines.tensorrt.toolchain import TensorRtToolchain


def open_tensorrt(model: OnnxModel, gpu: int, options: TensorRtOptions, watch: Watch) -> TensorRtEngine:
    """The engine, from the cache or built. Raises EngineError; see provide_engine."""
    cache = options.cache.open(os.environ)
    toolchain = TensorRtToolchain(
        model,
        options.config,
        gpu,
        cuda_driver=options.cuda_driver,
        instances=options.instances,
        folder=cache.timings_folder,
    )
    provided = provide_engine(toolchain, cache, watch)
    provided.engine.facts = _facts(provided, toolchain)
    return provided.engine


def _facts(provided: ProvidedEngine[TensorRtEngine], toolchain: TensorRtToolchain) -> dict[str, str]:
    sidecar = provided.sidecar
    facts = {
        "engine_key": sidecar.digest,
        "engine_source": "cache" if provided.from_cache else f"built in {sidecar.build_s:.1f} s",
        "precision": toolchain.config.precision,
        "tensorrt": toolchain.tensorrt_version,
        "gpu": toolchain.gpu.name,
    }
    if provided.problem:
        facts["engine_not_kept"] = provided.problem
    return facts
