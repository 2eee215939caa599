"""ONNX file + BuildConfig -> plan bytes, on the GPU that is current in the calling thread. No disk, no cache, no CLI.

Written against TensorRT 11, where types live in the graph; TensorRT 10 is the same with a flag.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import BuildCancelledError, BuildError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_options import apply_options
from trtserve_engines.tensorrt.parse_onnx import check_types, make_builder, parse_onnx, strongly_typed
from trtserve_engines.tensorrt.plugins import load_plugins
from trtserve_engines.tensorrt.profile_shapes import ProfileShapes
from trtserve_engines.tensorrt.progress import Progress, ProgressTree
from trtserve_engines.tensorrt.trt_log import LogLines, TensorRtLog, tensorrt_log

OnProgress = Callable[[Progress], bool]
"""Called from TensorRT's threads; False ends the build."""


@dataclass(frozen=True)
class BuiltPlan:
    """A plan in TensorRT's own memory, and what the build left: its timings and its warnings."""

    plan: memoryview
    timing_cache: bytes
    tensorrt_version: str
    seconds: float
    warnings: tuple[str, ...]


def build_plan(
    trt: Any,
    path: Path,
    config: BuildConfig,
    *,
    timing_cache: bytes = b"",
    on_progress: OnProgress | None = None,
) -> BuiltPlan:
    """Builds the model at `path`, whose profiles `config` holds (see `profiles.with_profiles`).

    Raises UnsupportedModelError, BuildCancelledError, BuildError with TensorRT's own lines, or ConfigError.
    """
    log = tensorrt_log(trt)
    log.set_verbosity(config.verbosity)
    start = time.monotonic()
    load_plugins(trt, config.plugins, log)
    with log.collect() as lines:
        build = _Build(trt, path, config, log, lines)
        plan = build.run(timing_cache, on_progress)
        timings = build.timings()
    warnings = tuple(dict.fromkeys(lines.at_least(logging.WARNING)))
    return BuiltPlan(memoryview(plan).cast("B"), timings, trt.__version__, time.monotonic() - start, warnings)


class _Build:
    """TensorRT's objects of one build; they hold each other's memory, so all live until the plan is there."""

    def __init__(self, trt: Any, path: Path, config: BuildConfig, log: TensorRtLog, lines: LogLines) -> None:
        self._trt, self._path, self._config, self._lines = trt, path, config, lines
        self._builder = make_builder(trt, log, lines)
        if config.builder_threads:
            self._builder.max_threads = config.builder_threads
        self._network = self._builder.create_network(strongly_typed(trt))
        self._parser = parse_onnx(trt, self._network, path, log, lines)
        check_types(self._network, read_onnx_model(path))
        self._native = self._builder.create_builder_config()
        apply_options(trt, self._native, config)
        self._add_profiles()
        self._make_io_linear()

    def run(self, timing_cache: bytes, on_progress: OnProgress | None) -> Any:
        """The plan, as TensorRT's IHostMemory."""
        if self._config.timing_cache:
            self._attach(timing_cache)
        monitor = None if on_progress is None else native_monitor(self._trt, on_progress)
        if monitor is not None:
            self._native.progress_monitor = monitor
        plan = self._builder.build_serialized_network(self._network, self._native)
        if plan is not None:
            return plan
        if monitor is not None and monitor.is_cancelled:
            raise BuildCancelledError(f"the build of {self._path} was cancelled", self._lines.at_least(0))
        raise BuildError(
            f"TensorRT {self._trt.__version__} could not build {self._path}: {self._lines.reason()}",
            self._lines.at_least(0),
        )

    def timings(self) -> bytes:
        """The timing cache after the build; empty where none is used."""
        cache = self._native.get_timing_cache() if self._config.timing_cache else None
        return b"" if cache is None else bytes(cache.serialize())

    def _attach(self, data: bytes) -> None:
        """Timings that do not fit this GPU or TensorRT are left aside: they cost time, not correctness."""
        self._timings = self._native.create_timing_cache(data)  # which must live as long as the build
        if not self._native.set_timing_cache(self._timings, False):
            self._timings = self._native.create_timing_cache(b"")
            self._native.set_timing_cache(self._timings, False)

    def _add_profiles(self) -> None:
        self._check_shape_inputs()
        for profile in self._config.profile_shapes():
            native = self._builder.create_optimization_profile()
            for tensor in self._inputs():
                shapes = profile.range_of(tensor.name)
                if shapes is not None and tensor.is_shape_tensor:
                    native.set_shape_input(tensor.name, *shapes)
                elif shapes is not None:
                    native.set_shape(tensor.name, *shapes)
            if self._native.add_optimization_profile(native) < 0:
                raise BuildError(f"TensorRT refuses the profile '{profile}': {self._lines.reason()}")

    def _check_shape_inputs(self) -> None:
        for tensor in self._inputs():
            named = [profile for profile in self._profiles() if profile.range_of(tensor.name) is not None]
            if tensor.is_shape_tensor and len(named) < max(1, len(self._profiles())):
                raise ConfigError(
                    f"input {tensor.name!r} is read as a shape, so every profile must name the values that it may have:"
                    f" {tensor.name}=MIN:OPT:MAX, for two values for example {tensor.name}=1x1:4x8:16x64"
                )
            if named and not tensor.is_shape_tensor and -1 not in tuple(tensor.shape):
                raise ConfigError(
                    f"profile '{named[0]}' names input {tensor.name!r}, whose shape is fixed and which is not read as"
                    " a shape; take it out of the profile"
                )

    def _make_io_linear(self) -> None:
        linear = 1 << int(self._trt.TensorFormat.LINEAR)
        outputs = [self._network.get_output(index) for index in range(self._network.num_outputs)]
        for tensor in [*self._inputs(), *outputs]:
            tensor.allowed_formats = linear

    def _profiles(self) -> tuple[ProfileShapes, ...]:
        return self._config.profile_shapes()

    def _inputs(self) -> list[Any]:
        return [self._network.get_input(index) for index in range(self._network.num_inputs)]


def native_monitor(trt: Any, on_progress: OnProgress) -> Any:
    """An IProgressMonitor that tells `on_progress`; `is_cancelled` says whether that ended the build."""

    class NativeMonitor(trt.IProgressMonitor):  # type: ignore[misc]
        """What TensorRT tells of its phases, from several threads, as one Progress at a time."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.is_cancelled = False
            self._tree = ProgressTree(time.monotonic())
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._tree.phase_start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._tree.step_complete(phase_name, step)
                if not self.is_cancelled:
                    self.is_cancelled = not on_progress(self._tree.at(time.monotonic()))
                return not self.is_cancelled

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._tree.phase_finish(phase_name)

    return NativeMonitor()
