"""What this machine has to execute models with, and why it lacks what it lacks. Facts only; no choice is made here."""

from __future__ import annotations

from dataclasses import dataclass

from trtserve_engines.device import GpuIdentity


@dataclass(frozen=True)
class Machine:
    """`gpus` is empty where `gpu_problem` says why; each other problem is "" where the thing can be used."""

    gpus: tuple[GpuIdentity, ...] = ()
    gpu_problem: str = ""
    tensorrt_problem: str = ""
    onnxruntime_cuda_problem: str = ""
