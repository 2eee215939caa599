"""Options of a build: builder config, optimization profile, timing cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ._basics import Dims, IHostMemory, IProgressMonitor, host_memory, initialised, log, log_error
from ._cuda import device
from ._real import (
    VERSION,
    BuilderFlag,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    Native,
    PreviewFeature,
    ProfilingVerbosity,
    Severity,
    TacticSource,
    TilingOptimizationLevel,
    as_in_this_generation,
)


def plain(name: str, kind: type) -> Any:
    """A property that keeps what it is given, where it is of the right type."""

    def write(self: Any, value: Any) -> None:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"{name}: incompatible function arguments: {type(value).__name__} given")
        self._values[name] = value

    return property(lambda self: self._values[name], write)


class IOptimizationProfile(Native):
    """Shapes, or values of shape inputs, that one profile is for."""

    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}
        self._shape_values: dict[str, list[list[int]]] = {}
        self._values = {"extra_memory_target": 1.0}

    extra_memory_target = plain("extra_memory_target", float)

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = self._checked(input, min, opt, max)

    def get_shape(self, input: str) -> list[Dims]:
        return [Dims(shape) for shape in self._shapes.get(input, [])]

    def set_shape_input(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        self._shape_values[input] = [list(values) for values in self._checked(input, min, opt, max)]

    def get_shape_input(self, input: str) -> list[list[int]]:
        return self._shape_values.get(input, [])

    def __bool__(self) -> bool:
        return bool(self._shapes or self._shape_values)

    def _checked(self, name: str, *shapes: Any) -> list[tuple[int, ...]]:
        result = [tuple(int(size) for size in shape) for shape in shapes]
        ordered = len({len(shape) for shape in result}) == 1 and all(
            low <= usual <= high for low, usual, high in zip(*result, strict=True)
        )
        if not ordered:
            raise RuntimeError(f"Shape provided for {name} is inconsistent with other shapes.")
        return result


class ITimingCache(Native):
    """Timings of earlier builds; fits one TensorRT on one kind of GPU."""

    def __init__(self, data: bytes) -> None:
        self._header = {"tensorrt": VERSION, "gpu": _gpu_name()}
        self._entries: dict[str, float] = {}
        if data:
            try:
                content = json.loads(data)
                self._header, self._entries = content["header"], content["entries"]
            except (ValueError, KeyError, TypeError):
                log(Severity.ERROR, "Timing cache: deserialization failed, starting from an empty one")

    def serialize(self) -> IHostMemory:
        return host_memory(json.dumps({"header": self._header, "entries": self._entries}).encode())

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if not ignore_mismatch and input_cache._header != self._header:
            log_error("ITimingCache::combine", "the caches are from different devices or versions")
            return False
        self._entries = {**input_cache._entries, **self._entries}
        return True

    def reset(self) -> bool:
        self._entries.clear()
        return True


class IBuilderConfig(Native):
    """Every option of a build that the simulation knows."""

    def __init__(self) -> None:
        self.reset()

    avg_timing_iterations = plain("avg_timing_iterations", int)
    max_aux_streams = plain("max_aux_streams", int)
    max_num_tactics = plain("max_num_tactics", int)
    l2_limit_for_tiling = plain("l2_limit_for_tiling", int)
    profiling_verbosity = plain("profiling_verbosity", ProfilingVerbosity)
    hardware_compatibility_level = plain("hardware_compatibility_level", HardwareCompatibilityLevel)
    tiling_optimization_level = plain("tiling_optimization_level", TilingOptimizationLevel)
    plugins_to_serialize = plain("plugins_to_serialize", list)
    build_route = plain("build_route", str)

    def reset(self) -> None:
        self._values = {
            "avg_timing_iterations": 1,
            "max_aux_streams": -1,
            "max_num_tactics": -1,
            "l2_limit_for_tiling": 0,
            "builder_optimization_level": 3,
            "profiling_verbosity": ProfilingVerbosity.LAYER_NAMES_ONLY,
            "hardware_compatibility_level": HardwareCompatibilityLevel.NONE,
            "tiling_optimization_level": TilingOptimizationLevel.NONE,
            "plugins_to_serialize": [],
            "build_route": "",
        }
        self._flags = 1 << int(BuilderFlag.TF32)
        self._pools: dict[Any, int] = {}
        self._previews: dict[Any, bool] = {}
        self._tactic_sources = sum(1 << int(source) for source in TacticSource.__members__.values())
        self._profiles: list[IOptimizationProfile] = []
        self._timing_cache: ITimingCache | None = None
        self._progress_monitor: IProgressMonitor | None = None

    @property
    def builder_optimization_level(self) -> int:
        return self._values["builder_optimization_level"]

    @builder_optimization_level.setter
    def builder_optimization_level(self, value: int) -> None:
        if 0 <= value <= 5:
            self._values["builder_optimization_level"] = value
        else:
            log_error("IBuilderConfig::setBuilderOptimizationLevel", "condition: level >= 0 && level <= 5")

    @property
    def progress_monitor(self) -> IProgressMonitor | None:
        return self._progress_monitor

    @progress_monitor.setter
    def progress_monitor(self, value: IProgressMonitor) -> None:
        self._progress_monitor = initialised(value, IProgressMonitor)

    @property
    def flags(self) -> int:
        return self._flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._flags = value

    def set_flag(self, flag: Any) -> None:
        self._flags |= 1 << _number(flag, BuilderFlag)

    def clear_flag(self, flag: Any) -> None:
        self._flags &= ~(1 << _number(flag, BuilderFlag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> _number(flag, BuilderFlag) & 1)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[MemoryPoolType(_number(pool, MemoryPoolType))] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool, 80 << 30)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        self._previews[PreviewFeature(_number(feature, PreviewFeature))] = enable

    def get_preview_feature(self, feature: Any) -> bool:
        return self._previews.get(feature, False)

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        if tactic_sources >> len(TacticSource.__members__):
            log_error("IBuilderConfig::setTacticSources", f"{tactic_sources:#x} names unknown tactic sources")
            return False
        self._tactic_sources = tactic_sources
        return True

    def get_tactic_sources(self) -> int:
        return self._tactic_sources

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile:
            log_error("IBuilderConfig::addOptimizationProfile", "the profile is not valid")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache:
        return ITimingCache(bytes(memoryview(serialized_timing_cache)))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if not ignore_mismatch and cache._header != {"tensorrt": VERSION, "gpu": _gpu_name()}:
            log(Severity.ERROR, "Timing cache: the device or the version differs; the cache is not used")
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing_cache


def _number(value: Any, kind: Any) -> int:
    if not isinstance(value, kind):
        raise TypeError(f"incompatible function arguments: {kind.__name__} wanted, {type(value).__name__} given")
    return int(value)


def _gpu_name() -> str:
    found = device()
    return found.identity()["name"] if found else ""


for _cls in (IOptimizationProfile, ITimingCache, IBuilderConfig):
    as_in_this_generation(_cls)
