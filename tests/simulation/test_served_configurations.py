"""What a configuration and a load request may say of a model, with TensorRT engines on the simulation."""

from __future__ import annotations

import json
import os
import tempfile

import numpy as np
import pytest

from tests.models import make_models as models
from tests.support.oip_client import Client, infer_request
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig
from trtserve_protos import oip

pytestmark = pytest.mark.simulated

WAIT_S = 60


def options(tmp_path, **more):
    common = {"backend": "tensorrt", "engine_cache": str(tmp_path / "cache")}
    return {**common, "tensorrt": TensorRtConfig(accuracy_runs=1), **more}


def test_a_reshaped_model_has_the_shapes_of_its_configuration(cuda, serve, tmp_path):
    models.save(models.linear(4, 6), tmp_path / "repository" / "m" / "1" / "model.onnx")
    (tmp_path / "repository" / "m" / "config.pbtxt").write_text(
        'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [2, 2] reshape { shape: [4] } }'
        ' output { name: "y" data_type: TYPE_FP32 dims: [3, 1, 2] reshape { shape: [6] } }'
    )
    server = serve(model_repository=(str(tmp_path / "repository"),), **options(tmp_path))
    client = Client(server.url)
    metadata = client.call("ModelMetadata", name="m")
    assert metadata.platform == "tensorrt_plan"
    assert (list(metadata.inputs[0].shape), list(metadata.outputs[0].shape)) == ([-1, 2, 2], [-1, 3, 1, 2])
    weights = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    for rows in (1, 5, 8):
        x = np.arange(4 * rows, dtype=np.float32).reshape(rows, 2, 2) / 10
        got = client.infer(infer_request("m", {"x": x}))["y"]
        np.testing.assert_allclose(got, (x.reshape(rows, 4) @ weights).reshape(rows, 3, 1, 2), rtol=1e-4, atol=1e-5)
    client.close()
    server.stop()


@pytest.mark.parametrize("while_building", ["wait", "serve-on-cpu"])
def test_files_of_a_load_request_last_until_their_engine_is_built(cuda, serve, tmp_path, monkeypatch, while_building):
    (tmp_path / "temporary").mkdir()
    (tmp_path / "repository").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    server = serve(
        model_repository=(str(tmp_path / "repository"),),
        model_control_mode="explicit",
        **options(tmp_path, while_building=while_building),
    )
    client = Client(server.url)
    request = oip.RepositoryModelLoadRequest(model_name="m")
    request.parameters["config"].string_param = json.dumps({"max_batch_size": 4})
    request.parameters["file:1/model.onnx"].bytes_param = models.linear().SerializeToString()
    client.call("RepositoryModelLoad", request, timeout=WAIT_S)
    server.wait_until(lambda: server.app.registry.find("m").backend == "tensorrt", WAIT_S)
    assert client.infer(infer_request("m", {"x": np.ones((2, 16), np.float32)}))["y"].shape == (2, 8)
    assert os.listdir(tmp_path / "temporary") == []
    client.call("RepositoryModelUnload", model_name="m")
    client.close()
    server.stop()
