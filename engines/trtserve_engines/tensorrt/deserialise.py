"""A plan as TensorRT's ICudaEngine, on the GPU that is current in the calling thread, or the reason why not."""

from __future__ import annotations

import logging
from typing import Any

from trtserve_engines.cuda.immortal import keep_for_good
from trtserve_engines.errors import BackendUnavailableError, DeviceMemoryError, PlanError
from trtserve_engines.lack_of_memory import is_lack_of_memory
from trtserve_engines.tensorrt.trt_log import LogLines, TensorRtLog

_NO_CUDA = "CUDA initialization failure"


def deserialise(trt: Any, log: TensorRtLog, plan: Any, where: str) -> Any:
    """The engine; `plan` is any buffer, `where` the GPU in words. The plugins that it needs are loaded before.

    Raises PlanError, DeviceMemoryError, or BackendUnavailableError where TensorRT cannot use the GPU at all.
    """
    with log.collect() as lines:
        native = _runtime(trt, log, lines).deserialize_cuda_engine(plan)
    if native is not None:
        return native
    # A plan that only found no room is a good one.
    kind = DeviceMemoryError if is_lack_of_memory(lines.reason()) else PlanError
    raise kind(
        f"TensorRT {trt.__version__} cannot load the plan of {memoryview(plan).nbytes} bytes on {where}:"
        f" {lines.reason()}"
    )


def _runtime(trt: Any, log: TensorRtLog, lines: LogLines) -> Any:
    try:
        runtime = trt.Runtime(log.native)
    except TypeError as error:  # what the bindings make of a null pointer
        raise _unusable(trt, lines) from error
    if any(_NO_CUDA in line for line in lines.at_least(logging.ERROR)):
        # It is an object around nothing, whose use and whose destructor crash the process.
        keep_for_good(runtime)
        raise _unusable(trt, lines)
    return runtime


def _unusable(trt: Any, lines: LogLines) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"TensorRT {trt.__version__} cannot use the GPU: {lines.reason()}; check the driver with nvidia-smi: it may be"
        " older than this TensorRT needs"
    )
