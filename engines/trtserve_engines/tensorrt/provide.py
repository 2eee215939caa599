"""From a model, how it is to be built and a GPU to an engine: from the cache, or built, checked, kept and then served.

The order is fixed here; what each step does is a Toolchain's. Blocks for as long as a build takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Protocol

from trtserve_engines.device import GpuIdentity
from trtserve_engines.engine import Engine
from trtserve_engines.errors import (
    BuildCancelledError,
    DamagedEntryError,
    EngineCacheError,
    EngineNotBuiltError,
    ModelFileError,
    PlanError,
)
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_key import engine_key
from trtserve_engines.tensorrt.cache_entry import Sidecar, plan_digest
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.engine_key import EngineKey
from trtserve_engines.tensorrt.step import Step, Watch

log = logging.getLogger(__name__)


class Toolchain(Protocol):
    """What makes and runs engines on one GPU. Every method may raise EngineError."""

    gpu: GpuIdentity
    tensorrt_version: str

    def complete(self, model: OnnxModel, config: BuildConfig) -> BuildConfig:
        """The configuration with its profiles, derived where none are given."""
        ...

    def recipe(self, config: BuildConfig) -> Mapping[str, Any]:
        """What will rewrite the graph: the tool and its version. Runs nothing."""
        ...

    def build(self, model: OnnxModel, config: BuildConfig, watch: Watch) -> bytes | mmap:
        """Rewrites the graph and builds it in a child process. Raises BuildCancelledError where that was wished."""
        ...

    def load(self, plan: bytes | mmap) -> Engine:
        """Deserialises a plan, any buffer. Raises PlanError where TensorRT does not take it."""
        ...

    def check(self, model: OnnxModel, config: BuildConfig, engine: Engine) -> Mapping[str, Any]:
        """Compares with ONNX Runtime; gives the report. Raises AccuracyError beyond the tolerance."""
        ...

    def describe(self, engine: Engine) -> tuple[tuple[Mapping[str, Any], ...], Mapping[str, int]]:
        """The table of inputs and outputs, and the memory that the engine takes, in bytes."""
        ...


@dataclass(frozen=True)
class ProvidedEngine:
    """An engine, and what is known of it. `problem` says why it is not in the cache; "" where it is."""

    engine: Engine
    sidecar: Sidecar
    from_cache: bool
    problem: str = ""


def provide_engine(
    model: OnnxModel,
    config: BuildConfig,
    toolchain: Toolchain,
    cache: EngineCache,
    watch: Watch,
) -> ProvidedEngine:
    """The engine of `model` on the toolchain's GPU. Of any number of processes that want it, one builds.

    Raises BuildCancelledError, EngineNotBuiltError where `watch` allows no build, or what the toolchain raises.
    Nothing is kept of an engine that fails its check.
    """
    config = toolchain.complete(model, config)
    key = engine_key(model.digest(), config, toolchain.gpu, toolchain.tensorrt_version, toolchain.recipe(config))
    if found := _from_cache(key, toolchain, cache, set_aside=False):
        return found
    if not watch.may_build:
        raise EngineNotBuiltError(f"{model.path} has no engine yet: {miss_reason(key, cache, str(model.path))}")
    with cache.lock(key, watch.cancel, lambda: watch.on_step(Step("waiting for another process to build"))) as held:
        if not held:
            raise BuildCancelledError(f"{model.path}: waiting for its engine was cancelled")
        if found := _from_cache(key, toolchain, cache, set_aside=True):
            return found
        log.info("%s: building an engine: %s", model.path, miss_reason(key, cache, str(model.path)))
        return _build(model, config, key, toolchain, cache, watch)


def miss_reason(key: EngineKey, cache: EngineCache, model_path: str) -> str:
    """Why the cache has no engine for `key`, in words."""
    changes = cache.closest(key, model_path)
    if changes is None:
        return "the cache has no engine of this model"
    return "; ".join(map(str, changes)) or "the cache's engine was set aside"


def _from_cache(key: EngineKey, toolchain: Toolchain, cache: EngineCache, *, set_aside: bool) -> ProvidedEngine | None:
    """The cached engine; None where there is none, or none that can be used, which only a lock's holder sets aside."""
    try:
        stored = cache.find(key)
        if stored is None:
            return None
        return ProvidedEngine(toolchain.load(stored.plan), stored.sidecar, from_cache=True)
    except (DamagedEntryError, PlanError) as error:
        if set_aside:
            target = cache.set_aside(key.digest, str(error))
            log.warning("%s; it was moved to %s and is built again", error, target)
        return None


def _build(
    model: OnnxModel,
    config: BuildConfig,
    key: EngineKey,
    toolchain: Toolchain,
    cache: EngineCache,
    watch: Watch,
) -> ProvidedEngine:
    started = time.monotonic()
    plan = toolchain.build(model, config, watch)
    build_s = time.monotonic() - started
    if model.digest_now() != key.model:
        raise ModelFileError(f"{model.path} changed while its engine was built; load it again")
    engine = toolchain.load(plan)
    try:
        watch.on_step(Step("checking its accuracy"))
        accuracy = toolchain.check(model, config, engine)
        io, memory = toolchain.describe(engine)
        sidecar = Sidecar(
            key=key.fields,
            plan_sha256=plan_digest(plan),
            plan_bytes=len(plan),
            build_s=round(build_s, 3),
            created=time.time(),
            model_path=str(model.path.absolute()),
            io=io,
            accuracy=accuracy,
            memory=memory,
        )
    except BaseException:
        engine.close()
        raise
    log.info("%s: engine built in %.1f s", model.path, build_s)
    return ProvidedEngine(engine, sidecar, from_cache=False, problem=_kept(key, plan, sidecar, cache))


def _kept(key: EngineKey, plan: bytes | mmap, sidecar: Sidecar, cache: EngineCache) -> str:
    """Publishes; what keeps the engine out of the cache, which is no reason not to serve it."""
    try:
        cache.publish(key, plan, sidecar)
    except EngineCacheError as error:
        log.warning("%s; it serves, and is built again at the next start", error)
        return str(error)
    return ""
