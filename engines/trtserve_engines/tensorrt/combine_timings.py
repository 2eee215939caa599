"""Makes one of two timing caches, with TensorRT, on the GPU that they are of."""

from __future__ import annotations

from trtserve_engines.cuda.api import Driver
from trtserve_engines.errors import BuildError
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.parse_onnx import make_builder
from trtserve_engines.tensorrt.trt_log import tensorrt_log


def combine_timings(driver: Driver, gpu: int, one: bytes, other: bytes) -> bytes:
    """What both know; `other` has the last word. Raises BuildError where they do not fit together."""
    trt = import_tensorrt()
    log = tensorrt_log(trt)
    device = driver.open(gpu)
    try:
        with log.collect() as lines:
            config = make_builder(trt, log, lines).create_builder_config()
            cache = config.create_timing_cache(other)
            if not cache.combine(config.create_timing_cache(one), False):
                raise BuildError(f"the timing caches do not fit together: {lines.reason()}")
            return bytes(cache.serialize())
    finally:
        device.close()
