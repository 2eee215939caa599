"""Whether rows of different requests may share a run: decided by signature and by trial."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from trtserve_engines.batch_check import check_batchable
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.open_engine import open_engine
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

INT64, STRING = TensorProto.INT64, TensorProto.STRING


def one_node(operator, outputs, weights=None, dims=("batch", 4), **attributes):
    """A model of one node from `x` (and its weights) to `y`."""
    node = helper.make_node(operator, ["x", *(weights or {})], ["y"], **attributes)
    return models.model([node], [models.tensor("x", dims)], [outputs], weights)


def of_table(size):
    """y = table[x]; fails for an index that is not in the table."""
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    weights = {"table": np.arange(size, dtype=np.float32)}
    return models.model([node], [models.tensor("x", ["batch"], INT64)], [models.tensor("y", ["batch"])], weights)


def reshaped(*shape, dims=("batch", 4), output=("batch", None)):
    return one_node("Reshape", models.tensor("y", output), {"shape": np.array(shape, np.int64)}, dims)


TABLE = {
    "matrix product": (models.linear(), True, "gave the same numbers"),
    "two dynamic dimensions": (models.identity(), True, "gave the same numbers"),
    "two inputs": (models.add(), True, "gave the same numbers"),
    "half precision": (models.identity(TensorProto.FLOAT16), True, "gave the same numbers"),
    "brain floating point": (models.identity(TensorProto.BFLOAT16), True, "gave the same numbers"),
    "strings": (models.identity(STRING, ["batch"]), True, "gave the same numbers"),
    "index of the largest": (
        one_node("ArgMax", models.tensor("y", ["batch"], INT64), axis=1, keepdims=0),
        True,
        "gave the same numbers",
    ),
    "not a number": (one_node("Log", models.tensor("y", ["batch", 4])), True, "gave the same numbers"),
    "index into a table": (of_table(2), True, "gave the same numbers"),
    "wants a multiple of 64": (
        reshaped(0, -1, 64, dims=("batch", "n"), output=("batch", "k", 64)),
        True,
        "gave the same numbers",
    ),
    "mixes rows": (models.mixes_rows(), False, "a row of output 'y' changes with the rows beside it"),
    "fixed": (models.identity(dims=[3, 4]), False, "the first dimension of 'x', 'y' is fixed"),
    "scalars": (models.identity(dims=[]), False, "the first dimension of 'x', 'y' is fixed"),
    "fixed output": (
        one_node("ReduceSum", models.tensor("y", [1, 4]), {"axes": np.array([0])}),
        False,
        "the first dimension of 'y' is fixed, so it cannot be a batch dimension",
    ),
    "one row for all": (
        one_node("ReduceSum", models.tensor("y", ["any", 4]), {"axes": np.array([0])}),
        False,
        "3 rows in gave output 'y' the shape [1, 4]",
    ),
    "all elements in a row": (
        reshaped(-1, output=("any",)),
        False,
        "3 rows in gave output 'y' the shape [12]",
    ),
    "fails on made-up data": (of_table(1), False, "the self-test could not run the model with 3 rows: ONNX Runtime"),
}


@pytest.mark.parametrize(("proto", "batched", "reason"), TABLE.values(), ids=TABLE)
def test_models_are_batched_where_rows_do_not_touch(tmp_path, proto, batched, reason):
    model = read_onnx_model(models.save(proto, tmp_path / "model.onnx"))
    engine = open_engine(model, backend="auto", device="auto", onnxruntime=OnnxRuntimeOptions(intra_op_threads=1))
    answer = check_batchable(engine)
    engine.close()
    assert answer.batched is batched
    assert reason in answer.reason


def scripted(compute, shape=(DYNAMIC, 4), dtype=np.float32, **options):
    spec = TensorSpec("x", np.dtype(dtype), shape)
    return ScriptedEngine(Signature((spec,), (spec,)), compute, **options)


def noisy(relative):
    """Every answer a little different from the last, as sums in another order are."""
    random = np.random.default_rng(0)
    return lambda inputs: {
        "x": (inputs["x"] * (1 + relative * random.standard_normal(inputs["x"].shape))).astype(inputs["x"].dtype)
    }


@pytest.mark.parametrize(
    ("dtype", "relative", "batched"),
    [
        ("float16", 1e-3, True),
        ("float16", 0.1, False),
        ("float32", 1e-5, True),
        ("float32", 0.02, False),
        ("float64", 1e-9, True),
        ("float64", 1e-4, False),
    ],
)
def test_the_last_digits_may_differ_and_no_more(dtype, relative, batched):
    assert check_batchable(scripted(noisy(relative), dtype=dtype)).batched is batched


@pytest.mark.parametrize(("relative", "batched"), [(3e-3, True), (0.2, False)])
def test_a_gpu_may_take_other_kernels_for_other_batches(relative, batched):
    engine = scripted(noisy(relative))
    assert not check_batchable(engine).batched
    engine.device = "gpu:0"
    assert check_batchable(engine).batched is batched


def test_whole_numbers_may_not_differ_at_all():
    calls = []

    def off_by_one_at_last(inputs):
        calls.append(1)
        return {"x": inputs["x"] + (len(calls) == 4)}

    answer = check_batchable(scripted(off_by_one_at_last, dtype=np.int64))
    assert answer == (False, "a row of output 'x' changes with the rows beside it")


def test_an_output_of_other_shape_for_a_row_alone_is_no_batch():
    def wide_when_together(inputs):
        return {"x": inputs["x"] if len(inputs["x"]) > 1 else inputs["x"][:, :1]}

    assert not check_batchable(scripted(wide_when_together)).batched


def test_a_model_without_tensors_is_not_batched():
    assert check_batchable(ScriptedEngine(Signature((), ()))) == (False, "the model has no inputs or outputs")


def test_a_model_without_inputs_is_not_batched():
    output = TensorSpec("y", np.dtype(np.float32), (DYNAMIC,))
    answer = check_batchable(ScriptedEngine(Signature((), (output,)), lambda inputs: {"y": np.zeros(3, np.float32)}))
    assert not answer.batched
    assert "no inputs" in answer.reason


def test_a_model_that_never_runs_gives_its_first_failure():
    engine = scripted(noisy(0), (DYNAMIC, DYNAMIC), failure=lambda number: ValueError(f"failure {number}"))
    answer = check_batchable(engine)
    assert not answer.batched
    assert "with 3 rows: the script fails batch 0: failure 0" in answer.reason
    assert len(engine.batches) > 1


@pytest.mark.parametrize("failing", [False, True])
def test_the_context_of_the_trial_is_closed(failing):
    engine = scripted(noisy(0), failure=lambda number: ValueError() if failing else None)
    check_batchable(engine)
    assert engine.open_contexts == 0


def test_an_error_that_is_none_of_the_engines_is_not_swallowed():
    def broken(inputs):
        raise ZeroDivisionError

    engine = scripted(broken)
    with pytest.raises(ZeroDivisionError):
        check_batchable(engine)
    assert engine.open_contexts == 0
