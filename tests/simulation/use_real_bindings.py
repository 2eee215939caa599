"""What trtserve does with TensorRT's bindings, done to the real ones; test_real_bindings.py runs it as a program.

python use_real_bindings.py [MANIFEST]
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from pathlib import Path

import tensorrt_bindings

from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_options import apply_options
from trtserve_engines.tensorrt.builder import native_monitor
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.parse_onnx import make_builder, strongly_typed
from trtserve_engines.tensorrt.progress import Progress
from trtserve_engines.tensorrt.tensor_types import NUMPY_TYPES
from trtserve_engines.tensorrt.trt_log import tensorrt_log

sys.modules["tensorrt"] = tensorrt_bindings  # what the package of that name would load
trt = import_tensorrt()


class BuilderConfig:
    """Takes what apply_options sets, where it is of the real type; the real class cannot be made without a GPU."""

    def __init__(self) -> None:
        self.flags: set[str] = set()

    def set_flag(self, flag: object) -> None:
        assert isinstance(flag, trt.BuilderFlag)
        self.flags.add(flag.name)

    def clear_flag(self, flag: object) -> None:
        assert isinstance(flag, trt.BuilderFlag)

    def set_memory_pool_limit(self, pool: object, size: int) -> None:
        assert isinstance(pool, trt.MemoryPoolType) and size

    def set_tactic_sources(self, mask: int) -> bool:
        assert mask == 1 << int(trt.TacticSource.JIT_CONVOLUTIONS)
        return True


def check_logger() -> None:
    logging.disable(logging.CRITICAL)
    log = tensorrt_log(trt)
    with log.collect() as lines:
        for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
            log.native.log(getattr(trt.ILogger.Severity, severity), severity)
    assert lines.at_least(0) == ["INTERNAL_ERROR", "ERROR", "WARNING"]


def check_monitor() -> None:
    seen: list[Progress] = []
    monitor = native_monitor(trt, lambda progress: seen.append(progress) or True)
    monitor.phase_start("root", None, 2)
    assert monitor.step_complete("root", 0) is True and seen[0].fraction == 0.5
    monitor.phase_finish("root")


def check_options() -> None:
    config = BuildConfig(
        tactic_sources=("jit_convolutions",),
        hardware_compatibility="same_compute_capability",
        tiling="fast",
        profiling_verbosity="detailed",
        workspace_bytes=1,
        version_compatible=True,
        refit="individual",
        sparse_weights=True,
        strict_nans=True,
        timing_cache=False,
    )
    native = BuilderConfig()
    apply_options(trt, native, config)
    assert native.flags == {
        "TF32", "SPARSE_WEIGHTS", "STRICT_NANS", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "REFIT_INDIVIDUAL",
        "DISABLE_TIMING_CACHE",
    }  # fmt: skip
    assert native.hardware_compatibility_level == trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    for name in vars(native).keys() - {"flags"}:
        assert hasattr(trt.IBuilderConfig, name), name


def check_builder() -> None:
    """Nothing can be made, and that is told in one line."""
    log = tensorrt_log(trt)
    told = ""
    try:
        with log.collect() as lines:
            make_builder(trt, log, lines)
    except BackendUnavailableError as error:
        told = str(error)
    assert "cannot use the GPU" in told


def check_types() -> None:
    assert all(getattr(trt.DataType, name).name == name for name in NUMPY_TYPES)
    assert strongly_typed(trt) == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def check_manifest(path: Path) -> None:
    """The manifest that the simulation is held to says what these bindings are."""
    manifest = json.loads(path.read_text())
    assert manifest["version"] == trt.__version__
    for name, members in manifest["classes"].items():
        cls = trt if name == "<module>" else functools.reduce(getattr, name.split("."), trt)
        for member, said in members.items():
            if (name, member) == ("<module>", "value"):
                continue  # a loop variable that the package leaves behind when it is imported as a whole
            real = getattr(cls, member)
            assert not isinstance(said, int) or int(real) == said, f"{name}.{member}"
            assert not isinstance(said, list) or callable(real), f"{name}.{member}"


for check in (check_logger, check_monitor, check_options, check_builder, check_types):
    check()
for argument in sys.argv[1:]:
    check_manifest(Path(argument))
print("all as it should be")
