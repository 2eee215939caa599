"""Triton's own Python client against our server, alone and in one process with ours."""

import json

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from tests.models import make_models
from trtserve_server.config import TraceConfig

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture
def digits(root, tmp_path):
    """A batch of the ten example scans, as a file."""
    images = [np.asarray(Image.open(root / "examples" / "digits" / f"{name}.png"), np.float32) for name in NAMES]
    np.save(tmp_path / "digits.npy", np.stack(images)[:, None])
    return tmp_path / "digits.npy"


@pytest.mark.parametrize("order", ["triton-first", "ours-first"])
def test_both_clients_live_in_one_process_and_get_the_same_arrays(serve, root, run_script, digits, order):
    server = serve(model_repository=(str(root / "examples" / "models"),))
    assert run_script("both_clients.py", order, server.url, str(digits)) == "same\n"


def test_the_stock_client_works_unchanged(serve, root, run_script, tmp_path):
    words = make_models.save(make_models.identity(TensorProto.STRING), tmp_path / "words.onnx")
    half = make_models.save(make_models.identity(TensorProto.FLOAT16), tmp_path / "half.onnx")
    server = serve(model_repository=(str(root / "examples" / "models"),), model=(str(words), str(half)))
    assert run_script("stock_client.py", server.url) == "ok\n"


def test_the_stock_client_controls_the_server(serve, root, run_script, tmp_path):
    file = tmp_path / "trace.json"
    server = serve(
        model_repository=(str(root / "examples" / "models"),),
        model_control_mode="explicit",
        trace=TraceConfig(file=str(file)),
    )
    assert run_script("stock_control.py", server.url, str(root / "examples/models/digits/1/model.onnx")) == "ok\n"
    server.stop()
    records = json.loads(file.read_text())
    assert [record["request_id"] for record in records if "request_id" in record] == ["traced"]
    assert sum("timestamps" in record for record in records) == 11
    assert {record["tensor"]["name"] for record in records if "tensor" in record} == {"image", "probabilities"}
