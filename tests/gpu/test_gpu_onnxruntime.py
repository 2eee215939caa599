"""ONNX Runtime's CUDA provider on a real GPU: the suite that every engine passes."""

import pytest

from tests.conformance import test_engine_conformance as suite
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_engines.open_engine import open_engine

pytestmark = pytest.mark.gpu

# The suite takes its `backend` from this file, because fixtures are looked up where tests are collected.
opened = suite.opened
globals().update({name: value for name, value in vars(suite).items() if name.startswith("test_")})

EXACT = OnnxRuntimeOptions(tf32=False)  # its numbers are held against those of the CPU


@pytest.fixture
def backend():
    machine = look_at_machine("auto")
    if problem := machine.gpu_problem or machine.onnxruntime_cuda_problem:
        pytest.skip(problem)
    return suite.Backend(
        lambda model, compute: open_engine(model, backend="onnxruntime", device="gpu:0", onnxruntime=EXACT),
        "onnxruntime",
        "gpu:0",
        {"fails on data": suite.TENSORRT_LACKS["fails on data"]},
    )
