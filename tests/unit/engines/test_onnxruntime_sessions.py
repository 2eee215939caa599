"""Sessions of one model with different numbers of threads: which there are, that they agree, what one more costs."""

import subprocess
import sys

import numpy as np
import pytest

from tests.models import make_models
from tests.models.transformer import transformer
from trtserve_engines import onnxruntime_sessions
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.cores import quota_from_text, usable_cores
from trtserve_engines.errors import ModelFileError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.onnxruntime_sessions import thread_choices


@pytest.mark.parametrize(
    ("cores", "choices"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (4, (1, 2, 4)), (12, (1, 3, 6, 12)), (64, (1, 2, 4, 8, 16, 32, 64))],
)
def test_the_choices_reach_from_one_thread_to_all_cores(cores, choices):
    assert thread_choices(cores) == choices


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", float("inf")), ("250000 100000\n", 2.5), ("50000 100000", 0.5), ("-1 100000", float("inf")),
     ("", float("inf")), ("100 0", float("inf"))],
)  # fmt: skip
def test_the_quota_of_a_container_in_cores(text, cores):
    assert quota_from_text(text) == cores


def test_there_is_at_least_one_core():
    assert usable_cores() >= 1


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(onnxruntime_sessions, "usable_cores", lambda: 4)


def engine_of(proto, path, **options):
    return OnnxRuntimeEngine.load(read_onnx_model(make_models.save(proto, path)), OnnxRuntimeOptions(**options))


@pytest.mark.parametrize(
    "proto", [make_models.convnet(16, 8, 2), transformer(8, 16, 2, 1)], ids=["convnet", "transformer"]
)
def test_every_choice_gives_the_same_answer(four_cores, tmp_path, proto):
    engine = engine_of(proto, tmp_path / "m.onnx")
    assert engine.thread_choices == (1, 2, 4)
    (spec,) = engine.signature.inputs
    x = np.random.default_rng(0).standard_normal((3, *spec.shape[1:])).astype(np.float32)
    context = engine.create_context(batched=True)
    one, four, lone = (context.run([{spec.name: x}], threads).outputs["logits"] for threads in (1, 4, 0))
    np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(four, lone)
    context.close()
    engine.close()


def test_a_given_number_of_threads_is_no_choice(four_cores, tmp_path):
    engine = engine_of(make_models.linear(), tmp_path / "m.onnx", intra_op_threads=2)
    assert engine.thread_choices == ()


def test_models_of_strings_and_without_weights_have_the_choice_too(four_cores, tmp_path):
    for number, proto in enumerate(
        (make_models.identity(), make_models.identity(8, ["batch", 1]), make_models.nonzero())
    ):
        assert engine_of(proto, tmp_path / f"{number}.onnx").thread_choices == (1, 2, 4)


def test_where_the_optimised_form_cannot_be_used_one_session_serves(four_cores, tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise RuntimeError("no room")

    monkeypatch.setattr(onnxruntime_sessions, "_open_optimised", refuse)
    engine = engine_of(make_models.linear(), tmp_path / "m.onnx")
    assert engine.thread_choices == ()
    assert "no room" in caplog.text
    x = np.ones((1, 16), np.float32)
    assert engine.create_context(batched=True).run([{"x": x}]).outputs["y"].shape == (1, 8)


def test_a_model_that_is_refused_is_refused_with_the_reason(four_cores, tmp_path):
    proto = make_models.linear()
    proto.graph.node[0].op_type = "Nothing"
    with pytest.raises(ModelFileError, match="Nothing"):
        engine_of(proto, tmp_path / "m.onnx")


MEMORY = """
import sys
from pathlib import Path
from trtserve_engines import onnxruntime_sessions as sessions
from trtserve_engines.config import OnnxRuntimeOptions

def memory():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

sessions.thread_choices = lambda cores: tuple(range(1, int(sys.argv[2]) + 1))
before = memory()
opened = sessions.open_sessions(Path(sys.argv[1]), OnnxRuntimeOptions())
x = {opened[1].get_inputs()[0].name: __import__("numpy").ones((1, 1024), "float32")}
for session in opened.values():
    session.run(None, x)
print(len(opened), memory() - before)
"""


def test_further_sessions_cost_no_copy_of_the_weights(tmp_path):
    path = make_models.save(make_models.linear(1024, 8192), tmp_path / "large.onnx")
    weights_kb = path.stat().st_size // 1024

    def memory_kb(sessions):
        command = [sys.executable, "-c", MEMORY, str(path), str(sessions)]
        count, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert int(count) == sessions
        return int(memory)

    assert memory_kb(5) - memory_kb(2) < weights_kb / 2
