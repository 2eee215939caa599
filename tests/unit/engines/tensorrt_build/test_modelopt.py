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
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.recipes import apply_recipe, recipe_tool

# With the options that AutoCast's command line has in version 0.47.
STAND_IN = """#!{python}
import argparse, glob, json, os, shutil, sys
import numpy as np
if sys.argv[1] == "-c":
    print("0.47.0") if "nvidia-modelopt" in sys.argv[2] else sys.exit(1)
    sys.exit()
assert sys.argv[1:3] == ["-m", "modelopt.onnx.autocast"], sys.argv
parser = argparse.ArgumentParser()
for name in ("--onnx_path", "--output_path", "--calibration_data", "--log_level"):
    parser.add_argument(name)
parser.add_argument("--low_precision_type", choices=["fp16", "bf16"])
parser.add_argument("--op_types_to_exclude", nargs="*", default=[])
parser.add_argument("--keep_io_types", action="store_true")
given = vars(parser.parse_args(sys.argv[3:]))
given["samples"] = sorted(os.listdir(given["calibration_data"]))
files = sorted(glob.glob(os.path.join(given["calibration_data"], "*")))
given["shapes"] = [[list(array.shape) for array in np.load(file).values()] for file in files]
given["has_our_path"] = "PYTHONPATH" in os.environ
if {fails}:
    print("\\033[1;31mloading\\033[m")
    raise ValueError("graph has a cycle")
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


def config_for(model, **options):
    return with_profiles(BuildConfig(**options), model.signature)


def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_it_rewrites_the_graph_in_an_environment_of_its_own(stand_in, model, tmp_path, monkeypatch, precision):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.savez(tmp_path / "s.npz", x=np.zeros((3, 16), np.float32))
    config = config_for(
        model,
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
    config = config_for(model, precision="fp16", modelopt_python=stand_in(), keep_io_types=False)
    apply_recipe(model, config, scratch(tmp_path))
    record = json.loads((tmp_path / "record.json").read_text())
    assert not record["keep_io_types"] and record["op_types_to_exclude"] == []


def test_without_samples_it_gets_made_up_ones_that_the_profiles_hold(stand_in, tmp_path):
    """Its own would have the size 1 in every dynamic dimension, which many a model refuses."""
    proto = models.identity(dims=("batch", 3, "height"))
    model = read_onnx_model(models.save(proto, tmp_path / "model.onnx"))
    profile = "x=2x3x32:4x3x64:8x3x128"
    config = config_for(model, precision="fp16", modelopt_python=stand_in(), profiles=(profile,))
    apply_recipe(model, config, scratch(tmp_path))
    shapes = json.loads((tmp_path / "record.json").read_text())["shapes"]
    assert shapes[0] == [[2, 3, 32]] and shapes[-1] == [[4, 3, 64]]


def test_its_failure_is_told_with_its_last_lines_without_the_places_in_its_code(stand_in, model, tmp_path):
    config = config_for(model, precision="fp16", modelopt_python=stand_in(fails=True))
    with pytest.raises(RecipeError, match=r"ended with exit code 1 .*: loading \| ValueError: graph has a cycle\."):
        apply_recipe(model, config, scratch(tmp_path))


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("/no/such/python", "cannot be run: No such file"),
        (sys.executable, "has no nvidia-modelopt; install it there"),
        ("/bin/true", "has no nvidia-modelopt; install it there"),
    ],
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
