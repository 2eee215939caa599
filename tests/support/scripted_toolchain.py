"""A toolchain that follows a script instead of TensorRT: what it was asked to do is counted, what fails is chosen."""

from __future__ import annotations

from collections.abc import Callable

from trtserve_engines.device import GpuIdentity
from trtserve_engines.errors import PlanError
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_engines.tensorrt.step import Step

GPU = GpuIdentity("NVIDIA L4", (8, 9), 58, 24 << 30, (13, 0))
PLAN = b"plan" * 1000


class ScriptedToolchain:
    """Builds PLAN. `on_build` runs in the middle of a build, `on_check` during the check; both may raise."""

    def __init__(
        self,
        *,
        gpu: GpuIdentity = GPU,
        tensorrt_version: str = "10.16.1.11",
        on_build: Callable[[], None] = lambda: None,
        on_check: Callable[[], None] = lambda: None,
        refused: tuple[bytes, ...] = (),
    ) -> None:
        self.gpu = gpu
        self.tensorrt_version = tensorrt_version
        self.on_build = on_build
        self.on_check = on_check
        self.refused = refused
        self.builds = 0
        self.engines: list[ScriptedEngine] = []

    def complete(self, model, config):
        return config

    def recipe(self, config):
        return {"tool": "script", "version": "1"}

    def build(self, model, config, watch):
        self.builds += 1
        self.signature = model.signature
        watch.on_step(Step("building", 50.0, 3.0))
        self.on_build()
        return PLAN

    def load(self, plan):
        if bytes(plan) in self.refused:
            raise PlanError("TensorRT does not take the plan")
        self.engines.append(ScriptedEngine(getattr(self, "signature", None)))
        return self.engines[-1]

    def check(self, model, config, engine):
        self.on_check()
        return {"outputs": []}

    def describe(self, engine):
        return ({"name": "x"},), {"plan_bytes": len(PLAN)}
