"""A sticky error of the simulated GPU under a serving server. In a child of its own: such a GPU is never given back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models import make_models as models
from tests.simulation.fake_cuda import FakeCuda
from tests.support.oip_client import Client, infer_request
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig

REQUEST = infer_request("m", {"x": np.ones((2, 16), np.float32)})


@pytest.fixture
def served(serve, tmp_path):
    path = models.save(models.linear(), tmp_path / "m.onnx")
    options = TensorRtConfig(accuracy_runs=1, wait_timeout_s=5)
    server = serve(model=(str(path),), backend="tensorrt", engine_cache=str(tmp_path / "cache"), tensorrt=options)
    client = Client(server.url)
    assert next(client.watch("m")) == "SERVING"
    yield server, client
    client.close()
    server.stop()


def assert_not_serving(server, client):
    server.wait_until(server.app.device_lost.is_set)
    assert not client.call("ServerReady").ready
    assert next(client.watch("m")) == "NOT_SERVING"


@pytest.mark.simulated(FAKE_CUDA_NAMES="GPU to be lost")
def test_a_sticky_error_makes_the_server_not_serving(served):
    server, client = served
    FakeCuda().fail("kernel", 719)
    error = client.error("ModelInfer", REQUEST)
    assert error.code().name == "INTERNAL"
    assert "CUDA_ERROR_LAUNCH_FAILED" in error.details()
    assert_not_serving(server, client)


@pytest.mark.simulated(FAKE_CUDA_NAMES="GPU that hangs")
def test_a_batch_that_never_ends_makes_the_server_not_serving(served):
    server, client = served
    with FakeCuda().held():
        error = client.error("ModelInfer", REQUEST)
        assert error.code().name == "INTERNAL"
        assert "the GPU has not finished a batch within 5 s" in error.details()
        assert_not_serving(server, client)
