"""NVIDIA's ModelOpt itself, in its own environment: AutoCast as `recipe` calls it, on the example and a transformer.

Skipped by name where there is none: it is wanted in .venv-modelopt, or wherever MODELOPT_PYTHON says.
docs/tensorrt.md says how to install it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.models import make_models as models
from tests.support.environments import ROOT
from trtserve_engines.errors import RecipeError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.cli.main import main
from trtserve_engines.tensorrt.modelopt import find

DIGITS = ROOT / "examples" / "models" / "digits" / "1" / "model.onnx"
HALF = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TOKENS = "tokens=1x4:4x10:8x16"

Recipe = Callable[..., tuple[int, dict]]


@pytest.fixture(scope="session")
def modelopt_python() -> str:
    """A Python that has ModelOpt."""
    python = os.environ.get("MODELOPT_PYTHON") or str(ROOT / ".venv-modelopt" / "bin" / "python")
    try:
        find(BuildConfig(precision="fp16", modelopt_python=python))
    except RecipeError as error:
        pytest.skip(f"ModelOpt is not installed: {error}")
    return python


@pytest.fixture
def recipe(modelopt_python: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Recipe:
    """Rewrites a model into `half.onnx`: the exit code, and what was measured."""

    def run(model: Path, *words: str) -> tuple[int, dict]:
        output = ("--output", str(tmp_path / "half.onnx"), "--json")
        with pytest.raises(SystemExit) as end:
            main(["recipe", str(model), "--modelopt-python", modelopt_python, *words, *output])
        return int(end.value.code or 0), json.loads(capsys.readouterr().out)

    return run


def types(proto: onnx.ModelProto) -> set[int]:
    """The types of the weights."""
    return {tensor.data_type for tensor in proto.graph.initializer}


def assert_close(report: dict, precision: str) -> None:
    (output,) = report["accuracy"]["outputs"]
    assert output["max_error"] < {"fp16": 5e-3, "bf16": 5e-2}[precision] * output["largest"]
    assert output["cosine"] > 0.999
    assert output["max_error"] > 0


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_example_becomes_half_as_large_and_stays_close(recipe, tmp_path, precision):
    code, report = recipe(DIGITS, "--precision", precision)
    assert code == 0
    assert report["tool"].startswith("modelopt ")
    assert report["bytes_after"] < 0.6 * report["bytes_before"]
    assert_close(report, precision)
    half = read_onnx_model(tmp_path / "half.onnx")
    assert half.signature == read_onnx_model(DIGITS).signature
    assert HALF[precision] in types(onnx.load(half.path))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_transformer_of_any_length_with_real_samples_and_operators_kept(recipe, tmp_path, precision):
    path = models.save(models.transformer(), tmp_path / "model.onnx")
    np.savez(tmp_path / "samples.npz", tokens=np.random.default_rng(1).integers(0, 50, (8, 10)))
    options = ("--profile", TOKENS, "--calibration", str(tmp_path / "samples.npz"), "--keep-fp32-op", "Softmax")
    code, report = recipe(path, "--precision", precision, *options)
    assert code == 0
    assert_close(report, precision)
    half = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "half.onnx")).graph
    kept = {node.output[0] for node in half.node if node.op_type == "Softmax"}
    kinds = {value.type.tensor_type.elem_type for value in half.value_info if value.name in kept}
    assert kept
    assert kinds == {TensorProto.FLOAT}


def test_what_goes_beyond_the_range_of_fp16_is_kept_in_fp32(recipe, tmp_path):
    path = models.save(models.transformer(detour=3e5), tmp_path / "model.onnx")
    code, report = recipe(path, "--precision", "fp16", "--profile", TOKENS)
    assert code == 0
    assert_close(report, "fp16")


def test_the_ends_may_become_half_too(recipe, tmp_path):
    path = models.save(models.convnet(16, 8, 2), tmp_path / "model.onnx")
    code, report = recipe(path, "--precision", "fp16", "--no-keep-io-types")
    assert code == 0
    assert_close(report, "fp16")
    signature = read_onnx_model(tmp_path / "half.onnx").signature
    assert {spec.dtype for spec in (*signature.inputs, *signature.outputs)} == {np.dtype(np.float16)}


def test_weights_in_files_of_their_own_are_found(recipe, tmp_path):
    path = models.save_with_external_data(models.convnet(16, 8, 2), tmp_path / "a folder" / "model.onnx")
    code, report = recipe(path, "--precision", "fp16")
    assert code == 0
    assert_close(report, "fp16")


def images_of_any_size(path: Path) -> Path:
    """A convnet without padding, for which one pixel is too small."""
    proto = models.convnet(16, 8, 2)
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    for node in proto.graph.node:
        if node.op_type == "Conv":
            node.attribute.pop()
    return models.save(proto, path)


def test_images_of_any_size_are_tried_in_sizes_that_the_profile_holds(recipe, tmp_path):
    path = images_of_any_size(tmp_path / "model.onnx")
    code, report = recipe(path, "--precision", "fp16", "--profile", "image=1x3x16x16:2x3x16x16:4x3x32x32")
    assert code == 0
    assert_close(report, "fp16")


def test_its_own_reason_comes_back_and_another_tool_is_offered(recipe, tmp_path):
    path = images_of_any_size(tmp_path / "model.onnx")
    code, report = recipe(path, "--precision", "fp16", "--profile", "image=1x3x1x1:2x3x16x16:4x3x32x32")
    assert code == 1
    assert "ended with exit code 1" in report["error"]
    assert "Invalid input shape" in report["error"]
    assert "precision_tool = 'onnxruntime'" in report["error"]
    assert "Traceback" not in report["error"]
