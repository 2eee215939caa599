"""A BuildConfig's options set on TensorRT's builder config, all by name; says which one this TensorRT lacks."""

from __future__ import annotations

from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.tensorrt.build_config import BuildConfig

_FLAGS = {
    "tf32": "TF32",
    "sparse_weights": "SPARSE_WEIGHTS",
    "strict_nans": "STRICT_NANS",
    "distributive_independence": "DISTRIBUTIVE_INDEPENDENCE",
    "version_compatible": "VERSION_COMPATIBLE",
}
_REFIT_FLAGS = {"all": "REFIT", "identical": "REFIT_IDENTICAL", "individual": "REFIT_INDIVIDUAL"}


def apply_options(trt: Any, native: Any, config: BuildConfig) -> None:
    """Sets `native`, an IBuilderConfig. Raises ConfigError for what this version of TensorRT does not have."""
    _apply_flags(trt, native, config)
    native.builder_optimization_level = config.optimization_level
    native.avg_timing_iterations = config.avg_timing_iterations
    native.max_num_tactics = config.max_num_tactics
    if config.max_aux_streams >= 0:
        native.max_aux_streams = config.max_aux_streams
    if config.workspace_bytes:
        native.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace_bytes)
    native.profiling_verbosity = _named(trt, "ProfilingVerbosity", "profiling_verbosity", config.profiling_verbosity)
    native.hardware_compatibility_level = _named(
        trt, "HardwareCompatibilityLevel", "hardware_compatibility", config.hardware_compatibility
    )
    native.tiling_optimization_level = _named(trt, "TilingOptimizationLevel", "tiling", config.tiling)
    if config.tactic_sources and not native.set_tactic_sources(_tactic_mask(trt, config)):
        raise ConfigError(f"tactic_sources = {list(config.tactic_sources)} was refused by TensorRT {trt.__version__}")


def _apply_flags(trt: Any, native: Any, config: BuildConfig) -> None:
    for field, name in _FLAGS.items():
        wanted = getattr(config, field)
        if wanted:
            native.set_flag(_named(trt, "BuilderFlag", field, name))
        elif hasattr(trt.BuilderFlag, name):
            native.clear_flag(getattr(trt.BuilderFlag, name))
    if config.version_compatible:
        # The lean runtime inside a plan is native code that would have to be allowed to run.
        native.set_flag(_named(trt, "BuilderFlag", "version_compatible", "EXCLUDE_LEAN_RUNTIME"))
    if config.refit != "off":
        native.set_flag(_named(trt, "BuilderFlag", "refit", _REFIT_FLAGS[config.refit]))
    if not config.timing_cache:
        native.set_flag(_named(trt, "BuilderFlag", "timing_cache", "DISABLE_TIMING_CACHE"))


def _tactic_mask(trt: Any, config: BuildConfig) -> int:
    names = [name for name in config.tactic_sources if name != "none"]
    return sum(1 << int(_named(trt, "TacticSource", "tactic_sources", name)) for name in set(names))


def _named(trt: Any, enum: str, field: str, name: str) -> Any:
    """The value of TensorRT's enum by its name, whatever number this version gives it."""
    members = getattr(trt, enum).__members__
    if name.upper() not in members:
        known = ", ".join(member.lower() for member in members)
        raise ConfigError(
            f"{field} needs {name.upper()}, which TensorRT {trt.__version__} does not have; it knows {known}"
        )
    return members[name.upper()]
