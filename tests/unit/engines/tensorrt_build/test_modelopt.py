"""ModelOpt as a program of its own: found, called with its real options, its failures told; a stand-in plays it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import make_models as models
from trtserve_engines.errors import RecipeError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.modelopt import find
from trtserve_engines.tensorrt.recipes import apply_recipe, recipe_tool

# With the options that AutoCast's command line has in version 0.47.
STAND_IN = """#!{python}
import argparse, json, os, shutil, sys
if sys.argv[1] == "-c":
    print("0.47.0") if "nvidia-modelopt" in sys.argv[2] else sys.exit(1)
    sys.exit()
assert sys.argv[1:3] == ["-m", "modelopt.onnx.autocast"], sys.argv
parser = argparse.ArgumentParser()
for name in ("--onnx_path", "--output_path", "--calibration_data"):
    parser.add_argument(name)
parser.add_argument("--low_precision_type", choices=["fp16", "bf16"])
parser.add_argument("--op_types_to_exclude", nargs="*", default=[])
parser.add_argument("--keep_io_types", action="store_true")
given = vars(parser.parse_args(sys.argv[3:]))
given["samples"] = sorted(os.listdir(given["calibration_data"])) if given["calibration_data"] else []
given["has_our_path"] = "PYTHONPATH" in os.environ
if {fails}:
    print("loading"), print("graph has a cycle", file=sys.stderr), sys.exit(3)
shutil.copy(given["onnx_path"], given["output_path"])
json.dump(given, open({record!r}, "w"))
"""


@pytest.fixture
def stand_in(tmp_path):
    def write(fails=False):
        path = tmp_path / f"python-{fails}"
        path.write_text(STAND_IN.format(python=sys.executable, fails=fails, record=str(tmp_path / "record.json")))
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def model(tmp_path):
    return read_onnx_model(models.save(models.linear(), tmp_path / "model" / "model.onnx"))


def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_it_rewrites_the_graph_in_an_environment_of_its_own(stand_in, model, tmp_path, monkeypatch, precision):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.savez(tmp_path / "s.npz", x=np.zeros((3, 16), np.float32))
    config = BuildConfig(
        precision=precision,
        modelopt_python=stand_in(),
        keep_fp32_ops=("Softmax", "Exp"),
        calibration=str(tmp_path / "s.npz"),
    )
    result = apply_recipe(model, config, scratch(tmp_path))
    record = json.loads((tmp_path / "record.json").read_text())
    assert result.tool == recipe_tool(config) == "modelopt 0.47.0" and onnx.load(result.path) == models.linear()
    assert record["low_precision_type"] == precision and record["op_types_to_exclude"] == ["Softmax", "Exp"]
    assert record["keep_io_types"] and record["samples"] == ["000000.npz", "000001.npz", "000002.npz"]
    assert not record["has_our_path"] and os.listdir(scratch(tmp_path)) == ["model.onnx"]


def test_options_that_were_not_given_are_not_passed(stand_in, model, tmp_path):
    config = BuildConfig(precision="fp16", modelopt_python=stand_in(), keep_io_types=False)
    apply_recipe(model, config, scratch(tmp_path))
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["calibration_data"] is None and not record["keep_io_types"] and record["op_types_to_exclude"] == []


def test_its_failure_is_told_with_its_last_lines(stand_in, model, tmp_path):
    config = BuildConfig(precision="fp16", modelopt_python=stand_in(fails=True))
    with pytest.raises(RecipeError, match=r"modelopt 0.47.0 ended with exit code 3 .*: loading \| graph has a cycle"):
        apply_recipe(model, config, scratch(tmp_path))


@pytest.mark.parametrize(
    ("python", "reason"),
    [("/no/such/python", "cannot be run: No such file"), (sys.executable, "has no nvidia-modelopt; install it there")],
)
def test_an_environment_without_it_is_refused(python, reason):
    with pytest.raises(RecipeError, match=reason):
        find(BuildConfig(precision="fp16", modelopt_python=python))


def test_by_itself_onnx_runtime_is_taken_where_modelopt_is_not():
    assert find(BuildConfig(precision="fp16")) is None
    with pytest.raises(RecipeError, match="precision_tool = 'modelopt', but nvidia-modelopt is not installed"):
        find(BuildConfig(precision="fp16", precision_tool="modelopt"))


def test_onnx_runtime_can_be_asked_for_by_name(stand_in):
    config = BuildConfig(precision="fp16", precision_tool="onnxruntime", modelopt_python=stand_in())
    assert find(config) is None and Path(stand_in()).exists()
