"""A sticky error of the simulated GPU under a serving server. In a child of its own: such a GPU is never given back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models import make_models as models
from tests.simulation.fake_cuda import FakeCuda
from tests.support.oip_client import Client, infer_request
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig

pytestmark = pytest.mark.simulated(FAKE_CUDA_NAMES="GPU to be lost")


def test_a_sticky_error_makes_the_server_not_serving(serve, tmp_path):
    path = models.save(models.linear(), tmp_path / "m.onnx")
    cache = str(tmp_path / "cache")
    server = serve(model=(str(path),), backend="tensorrt", engine_cache=cache, tensorrt=TensorRtConfig(accuracy_runs=1))
    client = Client(server.url)
    assert next(client.watch("m")) == "SERVING"
    FakeCuda().fail("kernel", 719)
    error = client.error("ModelInfer", infer_request("m", {"x": np.ones((2, 16), np.float32)}))
    assert error.code().name == "INTERNAL"
    assert "CUDA_ERROR_LAUNCH_FAILED" in error.details()
    server.wait_until(server.app.device_lost.is_set)
    assert not client.call("ServerReady").ready
    assert next(client.watch("m")) == "NOT_SERVING"
    client.close()
    server.stop()
