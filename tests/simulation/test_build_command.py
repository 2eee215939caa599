"""trtserve-build on the simulation: builds, explains, inspects, and says what is missing where there is no GPU."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.models import make_models as models
from trtserve_engines.step import Step
from trtserve_engines.tensorrt.cli.main import main
from trtserve_engines.tensorrt.cli.progress_line import ProgressLine, bar

Call = Callable[..., tuple[int, str, str]]
ON_GPU = pytest.mark.simulated
WAIT_S = 120


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(models.save(models.convnet(16, 8, 2), tmp_path / "m.onnx"))


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command: exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*words, "--engine-cache", str(tmp_path / "cache")])
        return (int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def command(tmp_path: Path) -> Call:
    """Runs a command in a process of its own, which knows no plugins yet."""

    def run(*words: str) -> tuple[int, str, str]:
        program = [sys.executable, "-m", "trtserve_engines.tensorrt.cli"]
        cache = ["--engine-cache", str(tmp_path / "cache")]
        result = subprocess.run([*program, *words, *cache], capture_output=True, text=True, timeout=WAIT_S)
        return result.returncode, result.stdout, result.stderr

    return run


def call_json(call: Call, *words: str) -> tuple[int, dict]:
    code, output, _ = call(*words, "--json")
    return code, json.loads(output)


@ON_GPU
def test_build_reports_and_the_second_time_finds(call, model):
    code, output, progress = call("build", model, "--precision", "fp16", "--optimization-level", "1")
    assert code == 0
    assert "m.onnx for Simulated GPU (compute 9.0, 132 SMs, 16.0 GiB, CUDA driver 13.0): built in" in output
    for text in (
        "key       ",
        "plan      ",
        "image=1x3x16x16:32x3x16x16:32x3x16x16",
        "onnxruntime ",
        "scratch",
        "cosine 1.",
    ):
        assert text in output
    assert "building 0 %\n" in progress
    assert "checking its accuracy\n" in progress
    code, output, progress = call("build", model, "--precision", "fp16", "--optimization-level", "1")
    assert (code, progress) == (0, "")
    assert "was in the cache" in output


@ON_GPU
def test_build_as_json_with_profiles_and_a_file(call, model, tmp_path):
    code, values = call_json(
        call, "build", model, "--profile", "image=1x3x16x16:2x3x16x16:4x3x16x16", "--output", str(tmp_path / "m.plan")
    )
    (engine,) = values["engines"]
    assert (code, engine["from_cache"], engine["not_kept"]) == (0, False, "")
    assert engine["profiles"] == ["image=1x3x16x16:2x3x16x16:4x3x16x16"]
    assert engine["accuracy"]["outputs"][0]["cosine"] > 0.999
    assert (tmp_path / "m.plan").stat().st_size == engine["plan_bytes"]
    assert (tmp_path / "m.plan").read_bytes()[:4] == b"ftrt"


@ON_GPU
def test_int8_from_calibration_samples(call, model, tmp_path):
    images = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=images)
    code, values = call_json(
        call, "build", model, "--precision", "int8", "--calibration", str(tmp_path / "samples.npz")
    )
    assert code == 0
    assert values["engines"][0]["accuracy"]["outputs"][0]["max_error"] > 0


@pytest.mark.simulated(FAKE_CUDA_DEVICES="2", FAKE_CUDA_NAMES="One,Other")
def test_each_kind_of_gpu_gets_its_engine(call, model, tmp_path):
    code, values = call_json(call, "build", model, "--device", "gpu")
    assert [engine["gpu"].split(" (")[0] for engine in values["engines"]] == ["One", "Other"]
    assert len({engine["key"] for engine in values["engines"]}) == 2
    code, _, error = call("build", model, "--device", "gpu", "--output", str(tmp_path / "x"))
    assert code == 2
    assert "--output takes one engine, but 2 kinds of GPU are meant" in error


@ON_GPU
def test_explain_says_hit_or_what_differs(call, model):
    code, output, _ = call("explain", model)
    assert code == 0
    assert "the cache has no engine of this model" in output
    call("build", model)
    assert call_json(call, "explain", model)[1]["engines"][0]["hit"]
    code, output, _ = call("explain", model, "--no-tf32")
    assert "build option tf32 changed: true -> false" in output
    assert "TensorRT's parser takes every operator." in output


@ON_GPU
def test_explain_says_what_is_damaged(call, model, tmp_path):
    call("build", model)
    (entry,) = (tmp_path / "cache" / "engines").iterdir()
    os.truncate(entry / "plan", 3)
    _, output, _ = call("explain", model)
    assert "It would be built again: engine " in output
    assert "its plan has 3 bytes" in output


@ON_GPU
def test_what_tensorrt_cannot_take_is_listed_by_explain_and_fails_a_build(call, tmp_path):
    node = helper.make_node("Det", ["x"], ["y"], name="the_det")
    proto = models.model([node], [models.tensor("x", ["batch", 4, 4])], [models.tensor("y", ["batch"])])
    path = str(models.save(proto, tmp_path / "det.onnx"))
    code, values = call_json(call, "explain", path)
    assert code == 0
    assert "node 0 'the_det', operator Det" in values["engines"][0]["unsupported"][0]
    code, _, error = call("build", path)
    assert code == 1
    assert "operator Det" in error


@ON_GPU
def test_an_engine_beyond_the_tolerance_is_not_kept(call, model):
    code, _, error = call("build", model, "--precision", "fp16", "--max-error", "1e-9")
    assert code == 1
    assert "output 'logits': max error" in error
    assert call_json(call, "list")[1]["engines"] == []


@ON_GPU
def test_samples_that_are_given_later_are_measured_on_the_engine_that_is_there(call, model, tmp_path):
    first = call_json(call, "build", model)[1]["engines"][0]
    samples = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=samples)
    options = ("--accuracy-samples", str(tmp_path / "samples.npz"))
    second = call_json(call, "build", model, *options)[1]["engines"][0]
    assert (second["from_cache"], second["key"]) == (True, first["key"])
    assert (first["accuracy"]["made_up"], first["accuracy"]["samples"]) == (True, 8)
    assert (second["accuracy"]["made_up"], second["accuracy"]["samples"]) == (False, 3)
    code, _, error = call("build", model, "--accuracy-samples", str(tmp_path / "missing.npz"))
    assert code != 0
    assert "missing.npz' cannot be read: No such file" in error


@ON_GPU
def test_a_plan_that_could_not_be_written_is_not_built(call, model, tmp_path):
    for output in (tmp_path, tmp_path / "no" / "x.plan"):
        code, _, error = call("build", model, "--output", str(output))
        assert code == 2
        assert f"--output {output}: " in error
    assert call_json(call, "list")[1]["engines"] == []


@ON_GPU
def test_inspect_shows_the_layers(call, model):
    key = call_json(call, "build", model)[1]["engines"][0]["key"]
    code, output, _ = call("inspect", key[:8])
    assert code == 0
    assert "layers\nBuild with --profiling-verbosity detailed" in output
    key = call_json(call, "build", model, "--profiling-verbosity", "detailed")[1]["engines"][0]["key"]
    code, values = call_json(call, "inspect", key)
    assert (code, values["key"]) == (0, key)
    assert any("Conv" in json.dumps(layer) for layer in values["Layers"])


@pytest.fixture
def plugin(tmp_path: Path) -> tuple[str, str]:
    """A model with an operator of a plugin, and the plugin's library."""
    node = helper.make_node("Twice", ["x"], ["y"], domain="my.plugins", name="twice")
    proto = models.model([node], [models.tensor("x", [4])], [models.tensor("y", [4])])
    proto.opset_import.append(helper.make_opsetid("my.plugins", 1))
    library = models.model([], [], [])
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    library.functions.append(helper.make_function("", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    return str(models.save(proto, tmp_path / "twice.onnx")), str(models.save(library, tmp_path / "plugin.so"))


@ON_GPU
def test_an_operator_of_a_plugin_is_explained_built_and_inspected_with_its_library(command, plugin):
    model, library = plugin
    code, output, _ = command("explain", model)
    assert (code, "operator Twice" in output) == (0, True)
    code, output, _ = command("explain", model, "--plugin", library)
    assert (code, "TensorRT's parser takes every operator." in output) == (0, True)
    code, _, error = command("build", model, "--plugin", library)
    assert code == 1
    assert "ONNX Runtime has nothing to compare the engine with" in error
    assert "accuracy_gate = false" in error
    code, output, error = command("build", model, "--plugin", library, "--no-accuracy-gate", "--json")
    assert (code, error.count("Traceback")) == (0, 0)
    key = json.loads(output)["engines"][0]["key"]
    code, output, error = command("inspect", key)
    assert code == 1
    assert "could not find plugin: Twice" in error
    code, output, _ = command("inspect", key, "--plugin", library)
    assert (code, "1 layer\n" in output) == (0, True)


@ON_GPU
def test_an_interrupted_build_leaves_nothing(model, tmp_path):
    os.mkfifo(tmp_path / "gate")
    environment = {**os.environ, "SIMULATED_TENSORRT_BUILD_GATE": str(tmp_path / "gate")}
    command = [sys.executable, "-m", "trtserve_engines.tensorrt.cli", "build", model]
    command += ["--engine-cache", str(tmp_path / "cache")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        with open(tmp_path / "gate", "wb"):  # opens once the build has come there
            process.send_signal(2)
            _, error = process.communicate(timeout=WAIT_S)
        assert process.returncode == 130
    assert "interrupted; nothing was left behind" in error
    for folder in ("engines", "partial", "locks"):
        assert os.listdir(tmp_path / "cache" / folder) == []


# ---- without a GPU ----


NEEDS_A_GPU = [("build", "{model}"), ("explain", "{model}"), ("inspect", "0123")]
NEEDS_NONE = [
    ("list",),
    ("verify",),
    ("prune", "--max-bytes", "1GiB"),
    ("prune", "--older-than", "30d"),
    ("recipe", "{model}", "--precision", "fp16"),
]


@pytest.mark.parametrize("words", NEEDS_A_GPU)
def test_without_a_gpu_one_sentence_says_what_is_missing(call, model, words):
    words = [word.format(model=model) for word in words]
    code, output, error = call(*words)
    assert (code, output) == (3, "")
    assert error.startswith("trtserve-build: this command needs a GPU and TensorRT, but CUDA cannot be used: ")
    assert error.count("\n") == 1
    code, values = call_json(call, *words)
    assert (code, values["exit_code"]) == (3, 3)
    assert f"trtserve-build: {values['error']}\n" == error


@pytest.mark.parametrize("words", NEEDS_NONE)
def test_what_needs_no_gpu_works_without_one(call, model, words):
    words = [word.format(model=model) for word in words]
    assert call(*words)[0] == 0
    assert call_json(call, *words)[0] == 0


@pytest.mark.parametrize("device", ["cpu", "auto", "gpu:x"])
@pytest.mark.parametrize("words", NEEDS_A_GPU)
def test_a_device_that_is_none_is_wrong_use_with_a_gpu_or_without(call, model, words, device):
    code, _, error = call(*(word.format(model=model) for word in words), "--device", device)
    assert code == 2
    assert f"device = '{device}'" in error


def test_who_has_read_enough_and_a_full_disk_are_no_stack_traces(tmp_path):
    program = [sys.executable, "-m", "trtserve_engines.tensorrt.cli"]
    for words in (["list", "--engine-cache", str(tmp_path / "cache")], ["show", "0", "--json"], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        gone = subprocess.run([*program, *words], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=WAIT_S)
        os.close(writer)
        assert gone.returncode in (1, 2)
        assert "Error" not in gone.stderr
    with open("/dev/full", "w") as full:
        command = [*program, "list", "--engine-cache", str(tmp_path / "cache")]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=WAIT_S)
    assert (result.returncode, result.stderr) == (
        1,
        "trtserve-build: the result cannot be written: No space left on device\n",
    )


def test_a_recipe_is_measured_without_a_gpu(call, model, tmp_path):
    code, output, _ = call("recipe", model, "--precision", "fp16", "--output", str(tmp_path / "half.onnx"))
    assert code == 0
    assert "m.onnx: fp16 by onnxruntime" in output
    assert "logits: max error" in output
    assert (tmp_path / "half.onnx").stat().st_size < Path(model).stat().st_size
    code, values = call_json(call, "recipe", model, "--precision", "fp16", "--max-error", "1e-9")
    assert code == 1
    assert "output 'logits': max error" in values["problem"]


def test_a_model_in_bf16_is_measured_though_the_cpu_has_no_kernels_for_it(call, tmp_path):
    path = str(models.save(models.in_bfloat16(models.convnet(16, 8, 2)), tmp_path / "m.onnx"))
    code, values = call_json(call, "recipe", path, "--precision", "fp32")
    assert code == 0
    assert 0 < values["accuracy"]["outputs"][0]["max_error"] < 1e-2


def test_a_recipe_needs_no_cache(call, model, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert call("recipe", model)[0] == 0


def test_a_recipe_that_cannot_be_written_is_said(call, model, tmp_path):
    code, _, error = call("recipe", model, "--precision", "fp16", "--output", str(tmp_path / "no" / "half.onnx"))
    assert code == 1
    assert "cannot be written to" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--precsion", "fp16"), "'--precsion' is unknown; did you mean '--precision'?"),
        (("--precision", "fp15"), "precision = 'fp15'; wanted is one of as-is, fp32, fp16, bf16, int8"),
        (("--precision", "int8"), "precision = 'int8' needs calibration"),
        (("--profile", "x=1x2:3"), "has two shapes"),
        (("--optimization-level", "many"), "--optimization-level = 'many'; wanted is a whole number"),
    ],
)
def test_mistakes_are_answered_in_one_line(call, model, words, message):
    code, _, error = call("recipe", model, *words)
    assert code == 2
    assert message in error


# ---- the line that shows how far it is ----


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_changes_and_goes():
    terminal = Terminal()
    with ProgressLine(terminal) as line:
        line.show(Step("building", 50.0, 7.0))
    assert terminal.getvalue() == f"\r\033[K[{'#' * 15}{'.' * 15}] building 50 %, about 7 s left\r\033[K"
    assert bar(Step("checking")) == f"[{'.' * 30}] checking"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of its own."""
    own = logging.Logger("own")
    yield own
    own.handlers.clear()


def test_what_is_logged_meanwhile_stands_above_the_line(logger):
    terminal, other = Terminal(), Terminal()
    logger.addHandler(logging.StreamHandler(terminal))
    logger.addHandler(logging.StreamHandler(other))
    with ProgressLine(terminal, logger) as line:
        logger.info("first")
        line.show(Step("building", 0.0))
        logger.info("second")
    logger.info("third")
    shown = bar(Step("building", 0.0))
    assert terminal.getvalue() == f"\r\033[Kfirst\n\r\033[K{shown}\r\033[Ksecond\n{shown}\r\033[Kthird\n"
    assert other.getvalue() == "first\nsecond\nthird\n"


def test_elsewhere_each_milestone_is_a_line():
    stream = io.StringIO()
    with ProgressLine(stream) as line:
        for percent in (0.0, 3.0, 12.0):
            line.show(Step("building", percent))
    assert stream.getvalue() == "building 0 %\nbuilding 12 %\n"
