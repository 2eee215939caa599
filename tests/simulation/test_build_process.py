"""Builds in a child process: progress, the child's errors, cancelling, crashes, and nothing that stays behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from tests.support.small_files import small_files
from trtserve_engines.config import ConfigError
from trtserve_engines.errors import (
    BackendUnavailableError,
    BuildCancelledError,
    BuildError,
    EngineError,
    ModelFileError,
    RecipeError,
    UnsupportedModelError,
)
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_job import BuildJob
from trtserve_engines.tensorrt.build_process import BuildProcess
from trtserve_engines.tensorrt.profiles import with_profiles

pytestmark = pytest.mark.simulated

GENERATIONS = [
    pytest.param(version, marks=pytest.mark.simulated(SIMULATED_TENSORRT_VERSION=version))
    for version in ("10.16", "11.4")
]
BOTH = pytest.mark.parametrize("generation", GENERATIONS)
TIMEOUT_S = 60


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    yield folder
    assert os.listdir(folder) == []


@pytest.fixture
def job(tmp_path):
    def job(model=None, gpu=0, timings=b"", cuda_driver="auto", **options):
        path = models.save(model or models.convnet(8, 4, 2), tmp_path / "model.onnx")
        config = with_profiles(BuildConfig(**options), read_onnx_model(path).signature)
        return BuildJob(path, config, gpu=gpu, cuda_driver=cuda_driver, timing_cache=timings)

    return job


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A FIFO at which the build waits half-way."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    monkeypatch.setenv("SIMULATED_TENSORRT_BUILD_GATE", str(path))
    return path


def header(plan):
    return bytes(plan[:4]), ".".join(map(str, plan[24:28]))


def has_ended(pid):
    """Waits for the end of a process that need not be a child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], TIMEOUT_S)[0])
    finally:
        os.close(descriptor)


@BOTH
def test_a_plan_comes_back_with_progress_and_log(generation, job, work):
    progress, lines = [], []
    build = BuildProcess(
        job(verbosity="info"),
        work_folder=work,
        on_progress=progress.append,
        on_log=lambda level, line: lines.append(line),
    )
    outcome = build.wait()
    assert header(outcome.plan) == (b"ftrt", outcome.tensorrt_version)
    assert outcome.tensorrt_version.startswith(generation) and outcome.seconds > 0 and outcome.recipe_tool == ""
    fractions = [each.fraction for each in progress]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1)
    assert any("Engine generation completed" in line for line in lines)


def test_timings_go_in_and_come_out(job, work):
    first = BuildProcess(job(), work_folder=work).wait()
    lines = []
    again = BuildProcess(
        job(timings=first.timing_cache, verbosity="verbose"),
        work_folder=work,
        on_log=lambda level, line: lines.append(line),
    ).wait()
    assert json.loads(again.timing_cache)["entries"] and any("timing cache hit" in line for line in lines)


def test_the_graph_is_rewritten_first(job, work):
    outcome = BuildProcess(job(precision="fp16"), work_folder=work).wait()
    assert outcome.recipe_tool.startswith("onnxruntime")
    (length,) = np.frombuffer(outcome.plan[32:36], np.uint32)
    model = onnx.ModelProto.FromString(outcome.plan[36 + int(length) :])
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT16}


@pytest.mark.simulated(FAKE_CUDA_DEVICES="2", FAKE_CUDA_NAMES="Big GPU,Small GPU", FAKE_CUDA_CAPABILITIES="90,75")
def test_it_builds_for_the_gpu_that_was_named(job, work):
    plan = BuildProcess(job(gpu=1), work_folder=work).wait().plan
    assert b'"name": "Small GPU"' in bytes(plan)


@pytest.mark.parametrize("cuda_driver", ["cuda-bindings", "pycuda"])
def test_either_driver_will_do_and_both_end_well_after_an_error(job, work, cuda_driver):
    assert BuildProcess(job(cuda_driver=cuda_driver), work_folder=work).wait().plan
    with pytest.raises(UnsupportedModelError):
        BuildProcess(job(unsupported(), cuda_driver=cuda_driver), work_folder=work).wait()


def test_a_gpu_that_is_not_there_is_one_line(job, work):
    with pytest.raises(EngineError, match="gpu:7|invalid device"):
        BuildProcess(job(gpu=7), work_folder=work).wait()


def unsupported():
    node = helper.make_node("Det", ["x"], ["y"], name="head/det")
    return models.model([node], [models.tensor("x", [2, 2])], [models.tensor("y", [])])


def shape_input():
    node = helper.make_node("Reshape", ["x", "target"], ["y"])
    inputs = [models.tensor("x", [12]), models.tensor("target", [2], TensorProto.INT64)]
    return models.model([node], inputs, [models.tensor("y", [None, None])])


@pytest.mark.parametrize(
    ("model", "options", "error", "reason"),
    [
        (unsupported, {}, UnsupportedModelError, "node 0 'head/det', operator Det: No importer"),
        (shape_input, {}, ConfigError, "'target' is read as a shape"),
        (models.linear, {"precision": "bf16"}, RecipeError, "bf16 needs NVIDIA's ModelOpt"),
        (models.linear, {"plugins": ("/no/such/plugin.so",)}, BackendUnavailableError, "plugin.so is not there"),
        (
            models.linear,
            {"precision": "int8", "calibration": "/no/such.npz"},
            ModelFileError,
            "such.npz cannot be read",
        ),
    ],
)
def test_errors_of_the_child_are_raised_here(job, work, model, options, error, reason):
    with pytest.raises(error, match=reason):
        BuildProcess(job(model(), **options), work_folder=work).wait()


def test_the_reason_for_a_none_is_tensorrts_own(job, work):
    wrong = job(models.linear(), profiles=("x=1x16:2x16:4x16",))
    models.save(models.linear(features=8), wrong.model)
    with pytest.raises(BuildError, match="does not agree with the network's dimensions") as caught:
        BuildProcess(wrong, work_folder=work).wait()
    assert caught.value.log_lines


@pytest.mark.simulated(FAKE_CUDA_DEVICES="0")
def test_without_a_gpu_it_is_one_line(job, work):
    with pytest.raises(BackendUnavailableError, match="no NVIDIA GPU"):
        BuildProcess(job(), work_folder=work).wait()


def test_cancelling_ends_the_process_at_once(job, work, gate):
    has_begun = threading.Event()
    build = BuildProcess(job(), work_folder=work, on_progress=lambda progress: has_begun.set())
    pid = build._process.pid

    def cancel():
        assert has_begun.wait(TIMEOUT_S)
        build.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(BuildCancelledError, match="the build of .*model.onnx was cancelled"):
        build.wait()
    thread.join()
    assert has_ended(pid)


def test_cancelling_before_waiting_and_twice_is_the_same(job, work, gate):
    build = BuildProcess(job(), work_folder=work)
    build.cancel()
    build.cancel()
    with pytest.raises(BuildCancelledError):
        build.wait()
    build.cancel()


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_crash_is_an_error_with_the_last_lines(job, work, monkeypatch, name):
    monkeypatch.setenv("SIMULATED_TENSORRT_BUILD_CRASH", name)
    with pytest.raises(BuildError, match=rf"was ended by {name}; its last lines: .*Parsed") as caught:
        BuildProcess(job(verbosity="info"), work_folder=work).wait()
    assert any("Parsed" in line for line in caught.value.log_lines)


def test_a_callback_that_fails_ends_the_build(job, work, gate):
    def fail(progress):
        raise KeyError("in the callback")

    build = BuildProcess(job(), work_folder=work, on_progress=fail)
    with pytest.raises(KeyError):
        build.wait()
    assert has_ended(build._process.pid)


PARENT = """
import sys
from pathlib import Path
from trtserve_engines.tensorrt.build_job import BuildJob
from trtserve_engines.tensorrt.build_process import BuildProcess

build = BuildProcess(
    BuildJob.from_json(sys.argv[1]),
    work_folder=Path(sys.argv[2]),
    on_progress=lambda progress: print(build._process.pid, flush=True),
)
build.wait()
"""


def test_the_build_ends_with_its_parent_however_that_ends(job, work, gate):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, job(precision="fp16").to_json(), str(work)], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    assert os.listdir(work)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert has_ended(pid)


def test_a_full_disk_is_told_as_one(job, work):
    work_job = job(models.linear(512, 512))
    with small_files(1 << 16):
        build = BuildProcess(work_job, work_folder=work)
    with pytest.raises(BuildError, match=r"the plan of \d+ bytes cannot be written to the work folder: File too large"):
        build.wait()


def test_a_work_folder_that_is_not_there_is_refused_without_a_process(job, tmp_path):
    with pytest.raises(FileNotFoundError):
        BuildProcess(job(), work_folder=tmp_path / "missing")


def test_a_job_is_the_same_after_its_journey(job):
    sent = job(profiles=("image=1x3x8x8:4x3x8x8:8x3x8x8",), keep_fp32_ops=("Softmax",), timings=b"\0\xff")
    assert BuildJob.from_json(sent.to_json()) == sent
