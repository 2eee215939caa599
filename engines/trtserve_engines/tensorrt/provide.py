"""From a toolchain, which knows a model, how it is built and a GPU, to an engine: from the cache, or built, checked,
kept and then served. The order is fixed here; what each step does is the toolchain's. Blocks for as long as a build.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

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
from trtserve_engines.step import Step, Watch
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_key import engine_key
from trtserve_engines.tensorrt.cache_entry import Sidecar, plan_digest
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.engine_key import EngineKey

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Engine)


class Toolchain(Protocol[E]):
    """What makes and runs the engine of one model on one GPU. Every method may raise EngineError."""

    @property
    def model(self) -> OnnxModel:
        """The model."""
        ...

    @property
    def config(self) -> BuildConfig:
        """How it is built, with its profiles."""
        ...

    @property
    def gpu(self) -> GpuIdentity:
        """What it is built for."""
        ...

    @property
    def gpu_uuid(self) -> str:
        """Which one it is built on, among equal ones."""
        ...

    @property
    def tensorrt_version(self) -> str:
        """The version in full."""
        ...

    def recipe(self) -> Mapping[str, Any]:
        """What will rewrite the graph: the tool and its version. Runs nothing."""
        ...

    def build(self, watch: Watch) -> bytes | mmap:
        """Rewrites the graph and builds it in a child process. Raises BuildCancelledError where that was wished."""
        ...

    def load(self, plan: bytes | mmap) -> E:
        """Deserialises a plan. Raises PlanError where TensorRT does not take it."""
        ...

    def check(self, engine: E, known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The report of a comparison with ONNX Runtime: the one that is known, where it is of the samples that are
        given now, or a new one; None where none is wanted.

        Raises AccuracyError where it is beyond the tolerance.
        """
        ...

    def describe(self, engine: E) -> tuple[tuple[Mapping[str, Any], ...], Mapping[str, int]]:
        """The table of inputs and outputs, and the memory that the engine takes beside its plan, in bytes."""
        ...


@dataclass(frozen=True)
class ProvidedEngine(Generic[E]):
    """An engine, its plan, and what is known of it. `problem` says why it is not in the cache; "" where it is."""

    engine: E
    plan: bytes | mmap
    sidecar: Sidecar
    from_cache: bool
    problem: str = ""


def provide_engine(toolchain: Toolchain[E], cache: EngineCache, watch: Watch) -> ProvidedEngine[E]:
    """The toolchain's engine. Of any number of processes that want it, one builds, and on each GPU one at a time.

    Raises BuildCancelledError, EngineNotBuiltError where `watch` allows no build, or what the toolchain raises.
    Nothing is kept of an engine that fails its check.
    """
    key = key_of(toolchain)
    if found := _from_cache(key, toolchain, cache, set_aside=False):
        return found
    path = toolchain.model.path
    if not watch.may_build:
        raise EngineNotBuiltError(f"{path} has no engine yet: {miss_reason(key, cache, path)}")
    with cache.lock(key, watch.cancel, lambda: watch.on_step(Step("waiting for another process to build"))) as held:
        if not held:
            raise BuildCancelledError(f"{path}: waiting for its engine was cancelled")
        if found := _from_cache(key, toolchain, cache, set_aside=True):
            return found
        log.info("%s: building an engine: %s", path, miss_reason(key, cache, path))
        return _build(key, toolchain, cache, watch)


def key_of(toolchain: Toolchain[Any]) -> EngineKey:
    """The key of the toolchain's engine. Reads the model's external data, plugins and calibration samples."""
    return engine_key(
        toolchain.model.digest(), toolchain.config, toolchain.gpu, toolchain.tensorrt_version, toolchain.recipe()
    )


def miss_reason(key: EngineKey, cache: EngineCache, model: Path) -> str:
    """Why the cache has no engine for `key`, in words."""
    changes = cache.closest(key, str(model.absolute()))
    if changes is None:
        return "the cache has no engine of this model"
    return "; ".join(map(str, changes)) or "the one in the cache is damaged"


def _from_cache(
    key: EngineKey, toolchain: Toolchain[E], cache: EngineCache, *, set_aside: bool
) -> ProvidedEngine[E] | None:
    """The cached engine; None where there is none, or none that can be used, which only a lock's holder sets aside."""
    try:
        stored = cache.find(key)
        if stored is None:
            return None
        engine = toolchain.load(stored.plan)
    except (DamagedEntryError, PlanError) as error:
        if set_aside:
            target = cache.set_aside(key.digest, str(error))
            log.warning("%s; it was moved to %s and is built again", error, target)
        return None
    try:
        sidecar = replace(stored.sidecar, accuracy=toolchain.check(engine, stored.sidecar.accuracy))
    except BaseException:
        engine.close()
        raise
    return ProvidedEngine(engine, stored.plan, sidecar, from_cache=True)


def _build(key: EngineKey, toolchain: Toolchain[E], cache: EngineCache, watch: Watch) -> ProvidedEngine[E]:
    plan, build_s = _built(toolchain, cache, watch)
    if toolchain.model.digest_now() != key.model:
        raise ModelFileError(f"{toolchain.model.path} changed while its engine was built; load it again")
    engine = toolchain.load(plan)
    try:
        watch.on_step(Step("checking its accuracy"))
        sidecar = _sidecar(key, toolchain, engine, plan, build_s)
    except BaseException:
        engine.close()
        raise
    log.info("%s: engine built in %.1f s", toolchain.model.path, build_s)
    return ProvidedEngine(engine, plan, sidecar, from_cache=False, problem=_kept(key, plan, sidecar, cache))


def _built(toolchain: Toolchain[E], cache: EngineCache, watch: Watch) -> tuple[bytes | mmap, float]:
    """The plan, and how long it took. Builds side by side on one GPU would spoil each other's timings."""

    def on_wait() -> None:
        watch.on_step(Step("waiting for another build on this GPU"))

    with cache.lock_gpu(toolchain.gpu_uuid, watch.cancel, on_wait) as held:
        if not held:
            raise BuildCancelledError(f"{toolchain.model.path}: waiting for its GPU was cancelled")
        started = time.monotonic()
        return toolchain.build(watch), time.monotonic() - started


def _sidecar(key: EngineKey, toolchain: Toolchain[E], engine: E, plan: bytes | mmap, build_s: float) -> Sidecar:
    accuracy = toolchain.check(engine, None)
    io, memory = toolchain.describe(engine)
    return Sidecar(
        key=key.fields,
        plan_sha256=plan_digest(plan),
        plan_bytes=len(plan),
        build_s=round(build_s, 3),
        created=time.time(),
        model_path=str(toolchain.model.path.absolute()),
        io=io,
        accuracy=accuracy,
        memory=memory,
    )


def _kept(key: EngineKey, plan: bytes | mmap, sidecar: Sidecar, cache: EngineCache) -> str:
    """Publishes; what keeps the engine out of the cache, which is no reason not to serve it."""
    try:
        cache.publish(key, plan, sidecar)
    except EngineCacheError as error:
        log.warning("%s; it serves, and is built again at the next start", error)
        return str(error)
    return ""
