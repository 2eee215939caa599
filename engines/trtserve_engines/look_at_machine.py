"""Finds out what this machine has to execute models with; loads the CUDA driver, and the rest only where that works."""

from __future__ import annotations

from functools import lru_cache

from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.machine import Machine


@lru_cache
def look_at_machine(cuda_driver: str) -> Machine:
    """The facts, found out once per process; `cuda_driver` is one of CUDA_DRIVERS."""
    from trtserve_engines.cuda.open_driver import open_driver

    try:
        gpus = open_driver(cuda_driver).gpus()
    except BackendUnavailableError as error:
        return Machine(gpu_problem=str(error))
    from trtserve_engines.onnxruntime_cuda import cuda_provider_problem

    return Machine(
        gpus=tuple(gpu.identity for gpu in gpus),
        tensorrt_problem=_tensorrt_problem(),
        onnxruntime_cuda_problem=cuda_provider_problem(),
    )


def _tensorrt_problem() -> str:
    from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt

    try:
        import_tensorrt()
    except BackendUnavailableError as error:
        return str(error)
    return ""
