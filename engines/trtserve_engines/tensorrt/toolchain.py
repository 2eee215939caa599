"""The toolchain of `provide.py` on a real GPU: recipes, build process, runtime and accuracy gate, joined."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Any

from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.step import Step, Watch
from trtserve_engines.tensorrt.accuracy_gate import check_report, is_of_samples, measure, tensor_table
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_job import BuildJob
from trtserve_engines.tensorrt.build_process import BuildProcess
from trtserve_engines.tensorrt.combine_timings import combine_timings
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.progress import Progress
from trtserve_engines.tensorrt.recipes import recipe_tool
from trtserve_engines.tensorrt.runtime import TensorRtEngine
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig
from trtserve_engines.tensorrt.timing_store import TimingStore


class TensorRtToolchain:
    """Builds `model` for, and runs it on, the GPU of the number `gpu`; `folder` is where timings are kept."""

    def __init__(
        self, model: OnnxModel, config: TensorRtConfig, gpu: int, *, cuda_driver: str, instances: int, folder: Path
    ) -> None:
        """Raises BackendUnavailableError, or ConfigError where the profiles do not fit the model."""
        self.model = model
        self.config: BuildConfig = with_profiles(config.build, model.signature)
        self._runtime = config.runtime
        self._tolerance = config.tolerance
        self.gpu_number = gpu
        self._instances = instances
        self._cuda_driver = cuda_driver
        self._driver = open_driver(cuda_driver)
        info = self._driver.gpus()[gpu]
        self.gpu, self.gpu_uuid = info.identity, info.uuid
        self.tensorrt_version = str(import_tensorrt().__version__)
        self._timings = TimingStore(folder, self.tensorrt_version, self.gpu)

    def recipe(self) -> Mapping[str, Any]:
        """See Toolchain."""
        return {"tool": recipe_tool(self.config)}

    def build(self, watch: Watch) -> mmap:
        """See Toolchain."""
        timings = self._timings.load() if self.config.timing_cache else b""
        job = BuildJob(self.model.path, self.config, self.gpu_number, self._cuda_driver, timings)
        process = BuildProcess(job, on_progress=lambda progress: watch.on_step(_step(progress)))
        with watch.cancel.calling(process.cancel):
            outcome = process.wait()
        self._timings.merge(timings, outcome.timing_cache, partial(combine_timings, self._driver, self.gpu_number))
        return outcome.plan

    def load(self, plan: bytes | mmap) -> TensorRtEngine:
        """See Toolchain."""
        return TensorRtEngine.load(
            plan,
            driver=self._driver,
            gpu=self.gpu_number,
            config=self._runtime,
            instances=self._instances,
            plugins=self.config.plugins,
        )

    def check(self, engine: TensorRtEngine, known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """See Toolchain."""
        if not self._tolerance.accuracy_gate:
            return known
        if known is None or not is_of_samples(known, self._tolerance):
            known = measure(self.model, self.config, self._tolerance, engine).to_json()
        check_report(known, self._tolerance, self.config.precision)
        return known

    def describe(self, engine: TensorRtEngine) -> tuple[tuple[Mapping[str, Any], ...], Mapping[str, int]]:
        """See Toolchain."""
        memory = {"scratch_bytes_per_instance": engine.scratch_bytes, "io_bytes_per_batch": engine.io_bytes}
        return tensor_table(engine.signature, self.config.profile_shapes()), memory


def _step(progress: Progress) -> Step:
    return Step("building", 100 * progress.fraction, progress.remaining_s)
