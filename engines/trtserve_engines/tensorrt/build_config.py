"""How an engine is built: every option by name, frozen, checking itself. Knows no TensorRT and no disk.

Names, never the numbers behind them: TensorRT gave the same names other numbers between its versions 10 and 11.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from trtserve_engines.config import ConfigError, check_at_least, check_choices, option
from trtserve_engines.tensorrt.profile_shapes import ProfileShapes

PRECISIONS = ("as-is", "fp32", "fp16", "bf16", "int8")
HARDWARE_COMPATIBILITY = ("none", "ampere_plus", "same_compute_capability")
REFIT = ("off", "all", "identical", "individual")
PROFILING_VERBOSITY = ("layer_names_only", "detailed", "none")
TILING = ("none", "fast", "moderate", "full")
LOG_VERBOSITY = ("error", "warning", "info", "verbose")
TACTIC_SOURCES = ("edge_mask_convolutions", "jit_convolutions", "cublas", "cublas_lt", "cudnn")
CALIBRATION_METHODS = ("minmax", "entropy", "percentile")
PRECISION_TOOLS = ("auto", "modelopt", "onnxruntime")

NOT_IN_KEY = frozenset(
    {
        "max_batch_size",
        "preferred_batch_size",
        "timing_cache",
        "verbosity",
        "builder_threads",
        "plugins",
        "calibration",
        "precision_tool",
        "modelopt_python",
    }
)
"""Fields that change no plan by themselves: they show in the profiles, in digests of files, or only in the log."""


@dataclass(frozen=True)
class BuildConfig:
    """How TensorRT builds one model's engine, and what is done to the graph before."""

    precision: str = option(
        "as-is",
        "what is done to the graph first: nothing, or a rewrite to FP32, FP16, BF16 or INT8",
        choices=PRECISIONS,
    )
    keep_fp32_ops: tuple[str, ...] = option(
        (), "operators (ONNX names) that fp16 and bf16 leave in FP32 and int8 leaves unquantised"
    )
    keep_io_types: bool = option(True, "inputs and outputs keep their types when the precision changes")
    calibration: str = option("", ".npz file of real input samples, for int8 (needed) and for fp16 and bf16")
    calibration_method: str = option("minmax", "how int8 chooses ranges from the samples", choices=CALIBRATION_METHODS)
    precision_tool: str = option(
        "auto", "what rewrites to fp16 and bf16; auto = ModelOpt where it is installed", choices=PRECISION_TOOLS
    )
    modelopt_python: str = option("", "the python of an environment of its own that has ModelOpt")

    profiles: tuple[str, ...] = option(
        (), "optimization profile NAME=MIN:OPT:MAX, several inputs with spaces between; absent = derived from the model"
    )
    max_batch_size: int = option(
        32, "rows of the largest batch, where the profile is derived; a server's follow from the model's max_batch_size"
    )
    preferred_batch_size: int = option(
        0,
        "rows that kernels are tuned for, where the profile is derived, 0 = max_batch_size; a server's follow from the"
        " model's preferred_batch_sizes",
    )

    tf32: bool = option(True, "FP32 matrix products may use TensorFloat-32 (10 bits of mantissa)")
    sparse_weights: bool = option(False, "use kernels for weights that are 2:4 sparse already")
    strict_nans: bool = option(False, "NaN goes through every operator as IEEE 754 says")
    distributive_independence: bool = option(
        False, "a row's result does not depend on the batch that it is in; needs TensorRT 10.12"
    )
    workspace_bytes: int = option(0, "device memory that a kernel may use for itself; 0 = all that there is")
    optimization_level: int = option(3, "0 = quickest build ... 5 = most kernels tried; 3 is TensorRT's default")
    max_aux_streams: int = option(
        0, "further streams that one run may use; 0 suits several instances, -1 = TensorRT's choice"
    )
    avg_timing_iterations: int = option(1, "runs whose mean time decides between kernels")
    max_num_tactics: int = option(-1, "kernels tried per layer; -1 = TensorRT's choice")
    tactic_sources: tuple[str, ...] = option(
        (), f"where kernels come from: {', '.join(TACTIC_SOURCES)} (the last three: TensorRT 10), or none; absent = all"
    )
    tiling: str = option("none", "how hard tilings that fit the L2 cache are looked for", choices=TILING)
    hardware_compatibility: str = option(
        "none", "GPUs other than this one that the engine must run on", choices=HARDWARE_COMPATIBILITY
    )
    version_compatible: bool = option(False, "the engine must run on newer versions of TensorRT")
    refit: str = option("off", "weights that may be changed after the build", choices=REFIT)
    profiling_verbosity: str = option(
        "layer_names_only", "what the engine tells the inspector of its layers", choices=PROFILING_VERBOSITY
    )
    plugins: tuple[str, ...] = option((), "plugin library (absolute path) that the model's operators need")

    timing_cache: bool = option(True, "use and extend the timings of earlier builds on this GPU")
    builder_threads: int = option(0, "threads that TensorRT may build with; 0 = its choice")
    verbosity: str = option("warning", "least severity of TensorRT's messages that is logged", choices=LOG_VERBOSITY)

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, 0, "preferred_batch_size", "workspace_bytes", "optimization_level", "builder_threads")
        check_at_least(self, 1, "max_batch_size", "avg_timing_iterations")
        check_at_least(self, -1, "max_aux_streams", "max_num_tactics")
        self._check_batch()
        self._check_precision()
        self._check_names()
        for text in self.profiles:
            ProfileShapes.parse(text)

    def profile_shapes(self) -> tuple[ProfileShapes, ...]:
        """The profiles as data, in their order."""
        return tuple(ProfileShapes.parse(text) for text in self.profiles)

    def key_fields(self) -> dict[str, Any]:
        """What of this changes the plan, by name, as plain JSON values.

        Files stand here for nothing: whoever makes a key adds digests of the plugins and of the calibration samples,
        and the tool that the recipe used. Profiles are those given; derive them first (`profiles.py`).
        """
        fields = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in NOT_IN_KEY
        }
        return {
            **fields,
            "profiles": [str(profile) for profile in self.profile_shapes()],  # their order is their number in the plan
            "keep_fp32_ops": sorted(self.keep_fp32_ops),
            "tactic_sources": sorted(self.tactic_sources),
        }

    def _check_batch(self) -> None:
        if self.preferred_batch_size > self.max_batch_size:
            raise ConfigError(
                f"preferred_batch_size = {self.preferred_batch_size} is above max_batch_size = {self.max_batch_size}"
            )
        if self.optimization_level > 5:
            raise ConfigError(f"optimization_level = {self.optimization_level}; wanted is 0 to 5")

    def _check_precision(self) -> None:
        if self.precision == "int8" and not self.calibration:
            raise ConfigError(
                "precision = 'int8' needs calibration: an .npz file with real samples of every input,"
                " because ranges cannot be made up"
            )

    def _check_names(self) -> None:
        known = (*TACTIC_SOURCES, "none")
        for name in self.tactic_sources:
            if name not in known:
                raise ConfigError(f"tactic_sources has {name!r}; wanted are {', '.join(known)}")
        if "none" in self.tactic_sources and len(self.tactic_sources) > 1:
            raise ConfigError(f"tactic_sources = {list(self.tactic_sources)}; none stands alone")
        for path in self.plugins:
            if not path.startswith("/"):
                raise ConfigError(f"plugins has {path!r}; wanted is an absolute path, because it names code to be run")
