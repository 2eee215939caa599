"""From a model and a wish to an engine: the rule of choice, and what ONNX Runtime is told and refuses."""

import logging
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from trtserve_engines.config import ConfigError, OnnxRuntimeOptions
from trtserve_engines.errors import BackendUnavailableError, EngineError, ModelFileError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.open_engine import open_engine


@pytest.fixture
def model(tmp_path):
    return read_onnx_model(models.save(models.linear(), tmp_path / "model.onnx"))


def engine_of(model, **options):
    return open_engine(model, backend="auto", device="auto", onnxruntime=OnnxRuntimeOptions(**options))


# ---- the choice, whose rule has its own tests ----


def test_the_choice_is_logged_with_its_reason(model, caplog):
    caplog.set_level(logging.DEBUG, "trtserve_engines.open_engine")
    engine_of(model).close()
    (message,) = caplog.messages
    assert message.startswith(f"{model.path}: backend onnxruntime on cpu, because TensorRT cannot be used: ")


def test_a_refused_wish_opens_nothing(model):
    with pytest.raises(BackendUnavailableError):
        open_engine(model, backend="tensorrt", device="auto", onnxruntime=OnnxRuntimeOptions())


def test_an_engine_says_what_it_is(model):
    engine = engine_of(model)
    assert (engine.backend, engine.device, engine.max_rows, engine.signature) == (
        "onnxruntime",
        "cpu",
        None,
        model.signature,
    )
    engine.close()


# ---- what ONNX Runtime refuses ----


def one_node(operator, **options):
    node = helper.make_node(operator, ["x"], ["y"], **options)
    return models.model([node], [models.tensor("x", ["n"])], [models.tensor("y", ["n"])])


def output_of_another_type():
    proto = models.identity()
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return proto


def dangling_input():
    proto = models.identity()
    proto.graph.node[0].input[0] = "nobody"
    return proto


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (one_node("NoSuchOperator"), "NoSuchOperator"),
        (one_node("Custom", domain="com.example"), "com.example"),
        (dangling_input(), "nobody"),
        (output_of_another_type(), "tensor(float)"),
    ],
    ids=["unknown operator", "unknown domain", "dangling input", "wrong output type"],
)
def test_models_that_onnx_runtime_refuses_are_refused_with_its_reason(tmp_path, proto, words):
    model = read_onnx_model(models.save(proto, tmp_path / "model.onnx"))
    with pytest.raises(ModelFileError) as caught:
        engine_of(model)
    message = str(caught.value)
    assert message.startswith(f"ONNX Runtime {onnxruntime.__version__} cannot load {model.path}: ")
    assert words in message
    assert caught.value.__cause__ is not None


def test_a_gpu_is_refused_where_onnx_runtime_has_no_cuda_provider(model):
    with pytest.raises(BackendUnavailableError, match="gpu:0 cannot be used: .* has no CUDA provider; install onnxrun"):
        OnnxRuntimeEngine.load(model, OnnxRuntimeOptions(), gpu=0)


def test_a_file_that_vanished_after_it_was_read_is_refused(model):
    model.path.unlink()
    with pytest.raises(ModelFileError, match=r"cannot load .*model\.onnx"):
        engine_of(model)


# ---- staging ----


def test_outputs_of_known_shape_are_written_into_memory_that_stays(tmp_path):
    """Whatever the number of rows; an output whose shape the data decide gets memory of its own for each run."""
    engine = engine_of(read_onnx_model(models.save(models.linear(), tmp_path / "linear.onnx")))
    context = engine.create_context(batched=True)
    addresses = set()
    for rows in (4, 4, 2, 4):
        answer = context.run([{"x": np.full((rows, 16), rows, np.float32)}]).outputs["y"]
        staged, moved = context._outputs[0].array(answer.shape)
        assert not moved
        np.testing.assert_array_equal(staged, answer)
        assert not np.shares_memory(staged, answer)
        addresses.add(staged.ctypes.data)
    assert len(addresses) == 1
    context.close()
    engine.close()
    unknown = engine_of(read_onnx_model(models.save(models.nonzero(), tmp_path / "nonzero.onnx")))
    context = unknown.create_context(batched=False)
    answer = context.run([{"x": np.ones(3, np.float32)}]).outputs["indices"]
    assert context._outputs[0].array(answer.shape)[1], "nothing was staged there"
    context.close()
    unknown.close()


# ---- options ----


def session_options(model, **options):
    """What the only session of an engine with a given number of threads was made with."""
    engine = engine_of(model, **{"intra_op_threads": 1, **options})
    (session,) = engine._sessions.values()
    read_back = session.get_session_options()
    engine.close()
    return read_back


@pytest.mark.parametrize(
    ("option", "attribute", "values"),
    [
        ("intra_op_threads", "intra_op_num_threads", {1: 1, 3: 3}),
        ("inter_op_threads", "inter_op_num_threads", {0: 0, 1: 1, 2: 2}),
        (
            "graph_optimization_level",
            "graph_optimization_level",
            {
                "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
                "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
                "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
                "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
            },
        ),
        (
            "execution_mode",
            "execution_mode",
            {
                "sequential": onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
                "parallel": onnxruntime.ExecutionMode.ORT_PARALLEL,
            },
        ),
        ("memory_arena", "enable_cpu_mem_arena", {True: True, False: False}),
        ("memory_pattern", "enable_mem_pattern", {True: True, False: False}),
    ],
)
def test_options_reach_the_session(model, option, attribute, values):
    assert {value: getattr(session_options(model, **{option: value}), attribute) for value in values} == values


@pytest.mark.parametrize("key", ["session.intra_op.allow_spinning", "session.inter_op.allow_spinning"])
@pytest.mark.parametrize(("spinning", "wanted"), [(True, "1"), (False, "0")])
def test_spinning_reaches_both_thread_pools(model, spinning, wanted, key):
    assert session_options(model, spinning=spinning).get_session_config_entry(key) == wanted


@pytest.mark.parametrize(
    "options",
    [
        {"intra_op_threads": 2},
        {"inter_op_threads": 2, "execution_mode": "parallel"},
        {"graph_optimization_level": "disabled"},
        {"memory_arena": False, "memory_pattern": False},
        {"spinning": True},
    ],
    ids=str,
)
def test_options_do_not_change_the_answer(model, options):
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    answers = []
    for chosen in ({}, options):
        engine = engine_of(model, **chosen)
        context = engine.create_context(batched=True)
        answers.append(context.run([{"x": x}]).outputs["y"])
        context.close()
        engine.close()
    np.testing.assert_allclose(*answers, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intra_op_threads": -1}, "intra_op_threads = -1; it must be at least 0"),
        ({"inter_op_threads": -2}, "inter_op_threads = -2; it must be at least 0"),
        ({"intra_op_threads": 1025}, "intra_op_threads = 1025; it must be at most 1024"),
        ({"inter_op_threads": 99_999_999}, "inter_op_threads = 99999999; it must be at most 1024"),
        (
            {"graph_optimization_level": "most"},
            "graph_optimization_level = 'most'; wanted is one of disabled, basic, extended, all",
        ),
        ({"execution_mode": ""}, "execution_mode = ''; wanted is one of sequential, parallel"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        OnnxRuntimeOptions(**options)
    assert str(caught.value) == message
    assert isinstance(caught.value, EngineError)
    assert isinstance(caught.value, ValueError)


def test_onnx_runtime_is_loaded_late_and_without_telemetry(model):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from trtserve_engines import onnxruntime_engine, open_engine\n"
        "from trtserve_engines.config import OnnxRuntimeOptions\n"
        "from trtserve_engines.onnx_model import read_onnx_model\n"
        "os.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"
        f"model = read_onnx_model(Path({str(model.path)!r}))\n"
        "print('onnxruntime' in sys.modules)\n"
        "open_engine.open_engine(model, backend='auto', device='auto', onnxruntime=OnnxRuntimeOptions())\n"
        "print('onnxruntime' in sys.modules, os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["False", "True", "1"], result.stderr
