"""A toolchain that follows a script instead of TensorRT: what it was asked to do is counted, what fails is chosen."""

from __future__ import annotations

from collections.abc import Callable

from trtserve_engines.device import GpuIdentity
from trtserve_engines.errors import PlanError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_engines.step import Step
from trtserve_engines.tensorrt.build_config import BuildConfig

GPU = GpuIdentity("NVIDIA L4", (8, 9), 58, 24 << 30, (13, 0))
PLAN = b"plan" * 1000


class ScriptedToolchain:
    """Builds PLAN for `model`. `on_build` runs in the middle of a build, `on_check` during a check; both may raise."""

    def __init__(
        self,
        model: OnnxModel,
        config: BuildConfig | None = None,
        *,
        gpu: GpuIdentity = GPU,
        gpu_uuid: str = "GPU-0",
        tensorrt_version: str = "10.16.1.11",
        on_build: Callable[[], None] = lambda: None,
        on_check: Callable[[], None] = lambda: None,
        plan: bytes = PLAN,
        refused: tuple[bytes, ...] = (),
    ) -> None:
        self.model = model
        self.config = config or BuildConfig()
        self.gpu = gpu
        self.gpu_uuid = gpu_uuid
        self.tensorrt_version = tensorrt_version
        self.on_build = on_build
        self.on_check = on_check
        self.plan = plan
        self.refused = refused
        self.builds = 0
        self.checked: list[object] = []
        self.engines: list[ScriptedEngine] = []

    def recipe(self):
        return {"tool": "script 1"}

    def build(self, watch):
        self.builds += 1
        watch.on_step(Step("building", 50.0, 3.0))
        self.on_build()
        return self.plan

    def load(self, plan):
        if bytes(plan) in self.refused:
            raise PlanError("TensorRT does not take the plan")
        self.engines.append(ScriptedEngine(self.model.signature))
        return self.engines[-1]

    def check(self, engine, known):
        self.checked.append(known)
        self.on_check()
        return known or {"outputs": [], "samples": 1, "made_up": True}

    def describe(self, engine):
        return ({"name": "x"},), {"scratch_bytes": 7}
