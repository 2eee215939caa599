"""TensorRT engines for tests, built in this process: where a real or a simulated `tensorrt` and a GPU can be had."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from trtserve_engines.cuda.api import Driver
from trtserve_engines.cuda.device_thread import DeviceThread
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.onnx_model import OnnxModel, read_onnx_model
from trtserve_engines.signature import DYNAMIC, Signature
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.builder import build_plan
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.profile_shapes import ProfileShapes, ShapeRange
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.runtime import TensorRtEngine
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig

MAX_ROWS, MAX_SIZE = 1024, 64


def wide_profile(signature: Signature) -> tuple[str, ...]:
    """A profile that takes up to MAX_ROWS rows and MAX_SIZE in every other dynamic dimension; none for fixed shapes."""
    ranges = {}
    for spec in signature.inputs:
        if DYNAMIC in spec.shape:
            most = (MAX_ROWS, *([MAX_SIZE] * (len(spec.shape) - 1)))
            low, usual, high = (
                tuple(limit if size == DYNAMIC else size for size, limit in zip(spec.shape, limits, strict=True))
                for limits in ([0] * len(most), [4] * len(most), most)
            )
            ranges[spec.name] = ShapeRange(low, usual, high)
    return (str(ProfileShapes.of(ranges)),) if ranges else ()


def build(path: Path, driver: Driver, config: BuildConfig | None = None, gpu: int = 0) -> bytes:
    """The plan of the model at `path` for a GPU, built on a thread of its own."""
    model = read_onnx_model(path)
    config = config or BuildConfig(tf32=False)  # its numbers are held against those of the CPU
    if not config.profiles:
        config = dataclasses.replace(config, profiles=wide_profile(model.signature))
    thread = DeviceThread(driver, gpu, "build")
    try:
        trt = import_tensorrt()
        built = thread.call(lambda device: build_plan(trt, path, with_profiles(config, model.signature)))
        return bytes(built.plan)
    finally:
        thread.close()


def open_tensorrt(model: OnnxModel, cuda_driver: str = "auto", config: RuntimeConfig | None = None) -> TensorRtEngine:
    """The model on GPU 0, with the widest profile."""
    driver = open_driver(cuda_driver)
    return TensorRtEngine.load(build(model.path, driver), driver=driver, config=config)
