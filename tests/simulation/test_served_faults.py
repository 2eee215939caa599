"""Faults of the GPU and of what an engine needs, under a serving server: the answer, the state, and what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.models import make_models as models
from tests.simulation.fake_cuda import FakeCuda
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig

pytestmark = pytest.mark.simulated

QUICK = TensorRtConfig(accuracy_runs=1)
ROWS = infer_request("m", {"x": np.ones((2, 16), np.float32)})
OUT_OF_MEMORY, INVALID_VALUE = 2, 1


@pytest.fixture
def serving(cuda: FakeCuda, serve: Callable[..., RunningServer], tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Serves one model, "m", with TensorRT: a client. Afterwards nothing is left on the GPU, as `cuda` looks."""
    started: list[tuple[RunningServer, Client]] = []

    def start(proto: onnx.ModelProto, tensorrt: TensorRtConfig = QUICK) -> Client:
        path = str(models.save(proto, tmp_path / "m.onnx"))
        server = serve(model=(path,), backend="tensorrt", engine_cache=str(tmp_path / "cache"), tensorrt=tensorrt)
        started.append((server, Client(server.url)))
        return started[-1][1]

    yield start
    cuda.reset()
    for server, client in started:
        client.close()
        server.stop()


def test_no_memory_during_a_run_fails_that_request_and_serves_the_next(serving, cuda):
    client = serving(models.nonzero(), TensorRtConfig(profiles=("x=1:1000:10000",), accuracy_runs=1))
    small = infer_request("m", {"x": np.ones(10, np.float32)})
    large = infer_request("m", {"x": np.ones(9000, np.float32)})
    assert client.infer(small)["indices"].shape == (1, 10)
    cuda.fail("cuMemAlloc", OUT_OF_MEMORY, times=2)
    error = client.error("ModelInfer", large)
    assert error.code().name == "RESOURCE_EXHAUSTED"
    words = "model 'm': there was too little memory for the run: cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY (2)"
    assert words in error.details()
    assert "; send less at once, or later" in error.details()
    cuda.reset()
    assert client.infer(large)["indices"].shape == (1, 9000)
    assert client.states()["m"] == ("READY", "")


def test_no_memory_for_an_instance_makes_the_model_unavailable_with_the_reason(serving, cuda):
    cuda.fail("cuMemHostAlloc", OUT_OF_MEMORY, times=50)
    client = serving(models.linear())
    state, reason = client.states()["m"]
    assert state == "UNAVAILABLE"
    assert "there is not enough memory for an instance of the engine: cuMemHostAlloc failed" in reason
    assert client.call("ServerLive").live


def test_a_launch_that_fails_fails_that_request_and_serves_the_next(serving, cuda):
    client = serving(models.linear())
    cuda.fail("cuMemcpyHtoDAsync", INVALID_VALUE)
    error = client.error("ModelInfer", ROWS)
    assert error.code().name == "INTERNAL"
    assert "cuMemcpyHtoDAsync failed with CUDA_ERROR_INVALID_VALUE (1)" in error.details()
    assert client.infer(ROWS)["y"].shape == (2, 8)
    assert client.states()["m"] == ("READY", "")


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ((), ("operator Twice", "Plugin not found", "name a plugin library that has the operator")),
        (("/missing/library.so",), ("plugins: '/missing/library.so' cannot be read: No such file or directory",)),
    ],
)
def test_a_missing_plugin_makes_the_model_unavailable_with_its_name(serving, plugins, words):
    node = helper.make_node("Twice", ["x"], ["y"], domain="my.plugins", name="twice")
    proto = models.model([node], [models.tensor("x", [4])], [models.tensor("y", [4])])
    proto.opset_import.append(helper.make_opsetid("my.plugins", 1))
    state, reason = serving(proto, TensorRtConfig(plugins=plugins)).states()["m"]
    assert state == "UNAVAILABLE"
    assert [word for word in words if word not in reason] == []
