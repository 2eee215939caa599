"""Builds by the real TensorRT on a real GPU: each precision held against ONNX Runtime, errors, progress, cancelling."""

from __future__ import annotations

import functools
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from tests.simulation.compact_manifest import FOLDER, VERSIONS
from trtserve_engines.accuracy import Tolerance, check, compare
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import (
    BackendUnavailableError,
    BuildCancelledError,
    BuildError,
    UnsupportedModelError,
)
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_job import BuildJob
from trtserve_engines.tensorrt.build_process import BuildProcess
from trtserve_engines.tensorrt.gate_samples import gate_samples
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.runtime import TensorRtEngine

pytestmark = pytest.mark.gpu

TIMEOUT_S = 120


@pytest.fixture
def trt():
    """The real package, once the driver has proved to work."""
    try:
        open_driver()
        return import_tensorrt()
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def job(trt, tmp_path):
    def job(proto, timings=b"", **options):
        path = models.save(proto, tmp_path / "model.onnx")
        config = with_profiles(BuildConfig(max_batch_size=8, **options), read_onnx_model(path).signature)
        return BuildJob(path, config, timing_cache=timings)

    return job


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    yield folder
    assert os.listdir(folder) == []


def test_the_real_bindings_have_what_the_simulation_shows(trt):
    """At the version that the manifest was made of; other versions may differ from it."""
    manifests = [json.loads((FOLDER / f"api-{version}.json").read_text()) for version in VERSIONS]
    manifest = next((each for each in manifests if each["version"] == trt.__version__), None)
    if manifest is None:
        pytest.skip(f"there is no manifest of TensorRT {trt.__version__}")
    for name, members in manifest["classes"].items():
        cls = trt if name == "<module>" else functools.reduce(getattr, name.split("."), trt)
        assert [member for member in members if member != "value" and not hasattr(cls, member)] == [], name


def test_a_plan_opens_with_its_version_and_progress_is_told(trt, job, work):
    progress = []
    outcome = BuildProcess(job(models.convnet(32, 16, 4)), work_folder=work, on_progress=progress.append).wait()
    assert bytes(outcome.plan[:4]) == b"ftrt"
    assert ".".join(map(str, outcome.plan[24:28])) == trt.__version__
    fractions = [each.fraction for each in progress]
    assert fractions == sorted(fractions) and fractions[-1] > 0.5
    again = job(models.convnet(32, 16, 4), timings=outcome.timing_cache)
    assert outcome.timing_cache and BuildProcess(again, work_folder=work).wait().plan


@pytest.mark.parametrize(
    ("precision", "tf32", "largest_error"),
    [("as-is", True, 5e-2), ("fp32", False, 1e-3), ("fp16", True, 5e-2), ("int8", True, 3e-1)],
)
def test_an_engine_of_each_precision_passes_the_gate(job, work, tmp_path, precision, tf32, largest_error):
    images = np.random.default_rng(0).standard_normal((32, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=images)
    asked = job(models.convnet(32, 16, 4), precision=precision, tf32=tf32, calibration=str(tmp_path / "samples.npz"))
    model, tolerance = read_onnx_model(asked.model), Tolerance(accuracy_samples=str(tmp_path / "samples.npz"))
    engine = TensorRtEngine.load(BuildProcess(asked, work_folder=work).wait().plan, driver=open_driver())
    try:
        samples = gate_samples(model.signature, asked.config, tolerance)
        report = compare(OnnxRuntimeEngine.load(model, OnnxRuntimeOptions()), engine, samples, made_up=False)
    finally:
        engine.close()
    check(report, tolerance, precision)
    (output,) = report.outputs
    assert output.max_error < largest_error * output.largest


def test_the_parsers_reason_comes_back(job, work):
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], domain="my.domain", name="custom/1")
    model = models.model([node], [models.tensor("x", [4])], [models.tensor("y", [4])])
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    with pytest.raises(UnsupportedModelError, match="operator NoSuchOperator"):
        BuildProcess(job(model), work_folder=work).wait()


def test_the_builders_reason_comes_back(job, work):
    wrong = job(models.linear(), profiles=("x=1x16:2x16:4x16",))
    models.save(models.linear(features=8), wrong.model)
    with pytest.raises(BuildError) as caught:
        BuildProcess(wrong, work_folder=work).wait()
    assert caught.value.log_lines and "gave no reason" not in str(caught.value)


def test_values_of_a_shape_input_make_a_profile(job, work):
    node = helper.make_node("Reshape", ["x", "target"], ["y"])
    inputs = [models.tensor("x", [12]), models.tensor("target", [2], TensorProto.INT64)]
    model = models.model([node], inputs, [models.tensor("y", [None, None])])
    assert BuildProcess(job(model, profiles=("target=1x1:3x4:12x12",)), work_folder=work).wait().plan


def test_a_build_can_be_cancelled(job, work):
    has_begun = threading.Event()
    build = BuildProcess(
        job(models.convnet(64, 64, 12), optimization_level=5, timing_cache=False),
        work_folder=work,
        on_progress=lambda progress: has_begun.set() if progress.fraction > 0 else None,
    )

    def cancel():
        assert has_begun.wait(TIMEOUT_S)
        build.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(BuildCancelledError):
        build.wait()
    thread.join()


def test_a_build_leaves_no_memory_on_the_gpu(job, work):
    device = open_driver().open(0)
    before = device.memory().free
    BuildProcess(job(models.convnet(32, 16, 4)), work_folder=Path(work)).wait()
    # Other processes may come and go on a shared GPU; what a build would leave is its whole context.
    assert device.memory().free > before - (64 << 20)
    device.close()
