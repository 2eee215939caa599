"""One suite for every engine: what engine.py promises, whatever executes the model.

A backend takes part by an entry in BACKENDS. Each case is an ONNX model and the same arithmetic in numpy, which is the
reference for real backends and the script of the scripted one.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.models import make_models as models
from tests.support.tensorrt_engines import open_tensorrt
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import Engine
from trtserve_engines.errors import ExecutionError
from trtserve_engines.onnx_model import OnnxModel, read_onnx_model
from trtserve_engines.open_engine import open_engine
from trtserve_engines.scripted_engine import Compute, ScriptedEngine

# ---- the backends ----


@dataclass(frozen=True)
class Backend:
    """How an engine is opened, what it calls itself and its device, and the cases that it cannot run and why not."""

    open: Callable[[OnnxModel, Compute], Engine]
    name: str
    device: str = "cpu"
    lacks: dict[str, str] = field(default_factory=dict)


def open_onnxruntime(model, compute):
    return open_engine(model, backend="onnxruntime", device="cpu", onnxruntime=OnnxRuntimeOptions(intra_op_threads=1))


def open_tensorrt_with(cuda_driver):
    return lambda model, compute: open_tensorrt(model, cuda_driver)


TENSORRT_LACKS = {
    **{f"identity {name}": "TensorRT has no such type" for name in ("UINT16", "UINT32", "UINT64", "INT16", "DOUBLE")},
    "identity STRING": "TensorRT has no strings",
    "fails on data": "a GPU checks no indices: what happens then is undefined",
}


def tensorrt(cuda_driver):
    return Backend(open_tensorrt_with(cuda_driver), "tensorrt", "gpu:0", TENSORRT_LACKS)


BACKENDS = {
    "scripted": Backend(lambda model, compute: ScriptedEngine(model.signature, compute), "scripted"),
    "onnxruntime": Backend(open_onnxruntime, "onnxruntime"),
    "tensorrt-11-cuda-bindings-simulated": tensorrt("cuda-bindings"),
    "tensorrt-10-pycuda-simulated": tensorrt("pycuda"),
}
SIMULATED_VERSIONS = {"tensorrt-11-cuda-bindings-simulated": "11.4", "tensorrt-10-pycuda-simulated": "10.16"}


def on_its_own_ground(name):
    """A simulated backend runs in a child process, with one generation of TensorRT."""
    version = SIMULATED_VERSIONS.get(name)
    marks = [pytest.mark.simulated(SIMULATED_TENSORRT_VERSION=version)] if version else []
    return pytest.param(name, marks=marks)


# ---- the cases ----


@dataclass(frozen=True)
class Case:
    """A model and what it computes. `name` is what a backend says it lacks."""

    name: str
    proto: onnx.ModelProto
    compute: Compute


def linear():
    proto = models.linear(features=4, classes=3)
    weights = numpy_helper.to_array(proto.graph.initializer[0])
    return Case("linear", proto, lambda inputs: {"y": inputs["x"] @ weights})


def identity(elem_type=TensorProto.FLOAT, dims=("batch", "n")):
    name = f"identity {TensorProto.DataType.Name(elem_type)}"
    return Case(name, models.identity(elem_type, dims), lambda inputs: {"y": inputs["x"].copy()})


def add(dims=("batch", 4)):
    return Case("two inputs", models.add(dims), lambda inputs: {"total": inputs["a"] + inputs["b"]})


def gather():
    def compute(inputs):
        try:
            return {"y": np.arange(4, dtype=np.float32)[inputs["index"]]}
        except IndexError as error:
            raise ExecutionError(str(error)) from error

    return Case("fails on data", models.gather(), compute)


def nonzero():
    return Case(
        "data-dependent shapes", models.nonzero(), lambda inputs: {"indices": np.array(inputs["x"].nonzero(), np.int64)}
    )


def nonzero_and_copy(order):
    """An output of unknown and one of known shape, in either order."""
    nodes = [helper.make_node("NonZero", ["x"], ["indices"]), helper.make_node("Identity", ["x"], ["y"])]
    outputs = {"indices": models.tensor("indices", [1, "count"], TensorProto.INT64), "y": models.tensor("y", [3])}
    return Case(
        "data-dependent shapes",
        models.model(nodes, [models.tensor("x", [3])], [outputs[name] for name in order]),
        lambda inputs: {"indices": np.array(inputs["x"].nonzero(), np.int64), "y": inputs["x"].copy()},
    )


def words_and_numbers():
    """Strings beside numbers, which pass through untouched."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("words", "x")]
    tensors = [
        [models.tensor(f"words{end}", ["batch"], TensorProto.STRING), models.tensor(f"x{end}", ["batch", 2])]
        for end in ("", "_out")
    ]
    return Case(
        "identity STRING",
        models.model(nodes, *tensors),
        lambda inputs: {f"{name}_out": array.copy() for name, array in inputs.items()},
    )


ROWS = (linear(), identity(), identity(dims=("batch", 4)), add(), add(("batch", "n")))
rows_of_a_batch = pytest.mark.parametrize(
    "case", ROWS, ids=["linear", "identity", "identity of 4", "two inputs", "two inputs of any width"]
)


# ---- the machinery ----


@pytest.fixture(params=map(on_its_own_ground, BACKENDS))
def backend(request):
    return BACKENDS[request.param]


class Opened:
    """An engine with its contexts, closed in the promised order at the end."""

    def __init__(self, engine, compute):
        self.engine = engine
        self.compute = compute
        self.contexts = []

    def context(self, batched=True):
        self.contexts.append(self.engine.create_context(batched=batched))
        return self.contexts[-1]

    def close(self):
        for context in self.contexts:
            context.close()
        self.engine.close()

    def check(self, context, *parts):
        """Runs the parts and compares with the reference; gives the outputs."""
        outputs = context.run(parts).outputs
        names = parts[0]
        wanted = self.compute({name: np.concatenate([part[name] for part in parts]) for name in names})
        assert_outputs(outputs, wanted)
        return outputs


@pytest.fixture
def opened(backend, tmp_path):
    """Opens the case on the backend."""
    everything = []

    def open_case(case):
        if case.name in backend.lacks:
            pytest.skip(f"{case.name}: {backend.lacks[case.name]}")
        path = models.save(case.proto, tmp_path / f"{len(everything)}.onnx")
        everything.append(Opened(backend.open(read_onnx_model(path), case.compute), case.compute))
        return everything[-1]

    yield open_case
    for each in everything:
        each.close()


def assert_outputs(outputs, wanted):
    assert set(outputs) == set(wanted)
    for name, array in wanted.items():
        assert (outputs[name].dtype, outputs[name].shape) == (array.dtype, array.shape)
        if array.dtype == np.float32:
            np.testing.assert_allclose(outputs[name], array, rtol=1e-5, atol=1e-6)
        else:
            assert outputs[name].tolist() == array.tolist()


def inputs_of(case, rows, seed=0, width=4):
    """Made-up inputs of `rows` rows."""
    random = np.random.default_rng(seed)
    names = [value.name for value in case.proto.graph.input]
    return {name: random.standard_normal((rows, width)).astype(np.float32) for name in names}


def x(*values, dtype=np.float32):
    return {"x": np.array(values, dtype)}


def unaligned(array):
    """The same elements, read-only, at an address that is no multiple of their size, as in a message."""
    return np.frombuffer(memoryview(b"\0" + array.tobytes())[1:], array.dtype).reshape(array.shape)


# ---- what an engine says of itself ----


def test_an_engine_says_what_it_is(opened, backend):
    engine = opened(linear()).engine
    assert (engine.backend, engine.device) == (backend.name, backend.device)
    assert engine.max_rows is None or engine.max_rows > 0
    assert [spec.name for spec in engine.signature.inputs] == ["x"]
    assert [spec.name for spec in engine.signature.outputs] == ["y"]


# ---- parts and rows ----


@rows_of_a_batch
@pytest.mark.parametrize("sizes", [[1], [5], [1, 1], [2, 3, 1], [1] * 20, [7, 1, 30]], ids=str)
def test_rows_of_all_parts_run_in_order(opened, case, sizes):
    model = opened(case)
    model.check(model.context(), *(inputs_of(case, rows, seed) for seed, rows in enumerate(sizes)))


@rows_of_a_batch
def test_a_row_gives_the_same_alone_and_among_others(opened, case):
    context = opened(case).context()
    parts = [inputs_of(case, 1, seed) for seed in range(5)]
    (together,) = context.run(parts).outputs.values()
    for row, part in enumerate(parts):
        (alone,) = context.run([part]).outputs.values()
        np.testing.assert_allclose(alone, together[row : row + 1], rtol=1e-5, atol=1e-6)


@rows_of_a_batch
def test_one_part_runs_as_it_is_without_batching(opened, case):
    model = opened(case)
    model.check(model.context(batched=False), inputs_of(case, 3))


def test_the_order_of_the_inputs_in_a_part_means_nothing(opened):
    context = opened(add()).context()
    a, b = np.full((1, 4), 1, np.float32), np.full((1, 4), 10, np.float32)
    parts = [{"a": a, "b": b}, {"b": b * 2, "a": a}]
    assert context.run(parts).outputs["total"][:, 0].tolist() == [11, 21]


@pytest.mark.parametrize("dims", [[2, 3], [1], []], ids=str)
def test_models_of_fixed_shape_and_scalars_run_one_part(opened, dims):
    model = opened(identity(dims=dims))
    context = model.context(batched=False)
    for start in (0, 5):
        model_input = (np.arange(np.prod(dims, dtype=int), dtype=np.float32) + start).reshape(dims)
        outputs = context.run([{"x": model_input}]).outputs
        assert_outputs(outputs, {"y": model_input})


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.STRING])
@pytest.mark.parametrize("sizes", [[2], [1, 2]], ids=str)
def test_rows_without_elements_run(opened, sizes, elem_type):
    case = identity(elem_type)
    dtype = {TensorProto.BFLOAT16: ml_dtypes.bfloat16, TensorProto.STRING: object}.get(elem_type, np.float32)
    context = opened(case).context()
    assert context.run([{"x": np.empty((rows, 0), dtype)} for rows in sizes]).outputs["y"].shape == (sum(sizes), 0)
    assert context.run([{"x": np.ones((1, 1), np.float32).astype(dtype)}] * 2).outputs["y"].shape == (2, 1)


# ---- datatypes ----

VALUES = {
    "BOOL": ("bool", [True, False, True]),
    "UINT8": ("uint8", [0, 1, 255]),
    "UINT16": ("uint16", [0, 1, 2**16 - 1]),
    "UINT32": ("uint32", [0, 1, 2**32 - 1]),
    "UINT64": ("uint64", [0, 1, 2**64 - 1]),
    "INT8": ("int8", [0, -128, 127]),
    "INT16": ("int16", [0, -(2**15), 2**15 - 1]),
    "INT32": ("int32", [0, -(2**31), 2**31 - 1]),
    "INT64": ("int64", [0, -(2**63), 2**63 - 1]),
    "FLOAT16": ("float16", [0, -65504, 6e-8]),
    "FLOAT": ("float32", [0, -3e38, np.inf]),
    "DOUBLE": ("float64", [0, -1e308, np.inf]),
    "BFLOAT16": (ml_dtypes.bfloat16, [0, -3e38, np.inf]),
}


@pytest.mark.parametrize("dims", [("batch", 3), ("batch", "n")], ids=["known", "unknown"])
@pytest.mark.parametrize("name", VALUES)
def test_every_datatype_passes_unchanged(opened, name, dims):
    dtype, values = VALUES[name]
    context = opened(identity(TensorProto.DataType.Value(name), dims)).context()
    first, second = np.array([values], dtype), np.array([values[::-1], values], dtype)
    for parts in ([first], [first, second], [second]):
        output = context.run([{"x": part} for part in parts]).outputs["y"]
        assert output.dtype == np.dtype(dtype)
        assert output.tobytes() == np.concatenate(parts).tobytes()


def text(array):
    """Strings as text: engines may give them as bytes."""
    return [element.decode() if isinstance(element, bytes) else element for element in array.ravel().tolist()]


def test_strings_pass_unchanged(opened):
    context = opened(identity(TensorProto.STRING)).context()
    first = np.array([[b"a", "b"]], object)
    second = np.array([["", "caf\u00e9"], ["\N{SNOWMAN}".encode(), "a\0b"]], object)
    assert text(context.run([{"x": first}]).outputs["y"]) == ["a", "b"]
    assert text(context.run([{"x": first}, {"x": second}]).outputs["y"]) == [
        *("a", "b", "", "caf\u00e9"),
        *("\N{SNOWMAN}", "a\0b"),
    ]


def test_numbers_pass_unchanged_beside_strings(opened):
    context = opened(words_and_numbers()).context()
    part = {"words": np.array(["a"], object), "x": unaligned(np.array([[1, 2]], np.float32))}
    for count in (1, 2):
        outputs = context.run([part] * count).outputs
        assert text(outputs["words_out"]) == ["a"] * count
        assert outputs["x_out"].tolist() == [[1, 2]] * count
        assert not np.shares_memory(outputs["x_out"], part["x"])


# ---- shapes ----


@pytest.mark.parametrize("case", [nonzero(), nonzero_and_copy(["indices", "y"]), nonzero_and_copy(["y", "indices"])])
def test_shapes_may_depend_on_the_data(opened, case):
    model = opened(case)
    context = model.context(batched=False)
    for values in ([1, 0, 2], [0, 0, 0], [1, 2, 3], [0, 5, 0], [1, 0, 2]):
        model.check(context, x(*values))


def test_any_number_of_shapes_may_follow_each_other(opened):
    case = identity()
    model = opened(case)
    context = model.context()
    shapes = [(rows, width) for rows in range(1, 11) for width in range(1, 11)]
    for rows, width in [*shapes, *reversed(shapes), *shapes[::7]]:
        model.check(context, inputs_of(case, rows, rows, width))


@rows_of_a_batch
def test_batches_grow_and_shrink(opened, case):
    model = opened(case)
    context = model.context()
    for seed, rows in enumerate([1, 2, 100, 1, 3, 1000, 2, 100]):
        model.check(context, inputs_of(case, rows, seed))


# ---- memory ----


@rows_of_a_batch
def test_results_stay_as_they_are_while_more_batches_run(opened, case):
    context = opened(case).context()
    results = [context.run([inputs_of(case, rows, rows)]).outputs for rows in (2, 2, 5, 1)]
    copies = [{name: array.copy() for name, array in outputs.items()} for outputs in results]
    for rows in (2, 5, 1, 50, 2):
        context.run([inputs_of(case, rows, 100 + rows)])
    for outputs, copy in zip(results, copies, strict=True):
        assert_outputs(outputs, copy)


@rows_of_a_batch
@pytest.mark.parametrize("count", [1, 2])
def test_results_belong_to_the_receiver(opened, case, count):
    model = opened(case)
    context = model.context()
    parts = [inputs_of(case, 2, seed) for seed in range(count)]
    first = model.check(context, *parts)
    second = context.run(parts).outputs
    for name, array in first.items():
        assert not np.shares_memory(array, second[name])
        assert not any(np.shares_memory(array, given) for part in parts for given in part.values())
        array[:] = 7
    model.check(context, *parts)


@rows_of_a_batch
@pytest.mark.parametrize("count", [1, 3])
def test_parts_are_left_as_they_were(opened, case, count):
    parts = [inputs_of(case, 2, seed) for seed in range(count)]
    before = [{name: array.copy() for name, array in part.items()} for part in parts]
    opened(case).context().run(parts)
    for part, old in zip(parts, before, strict=True):
        assert_outputs(part, old)


@rows_of_a_batch
def test_parts_are_not_needed_once_the_run_is_over(opened, case):
    context = opened(case).context()
    part = inputs_of(case, 2)
    outputs = context.run([part]).outputs
    copy = {name: array.copy() for name, array in outputs.items()}
    for array in part.values():
        array[:] = 7
    assert_outputs(outputs, copy)


@rows_of_a_batch
@pytest.mark.parametrize("count", [1, 2])
def test_parts_may_be_read_only_and_unaligned(opened, case, count):
    model = opened(case)
    parts = [{name: unaligned(array) for name, array in inputs_of(case, 3, seed).items()} for seed in range(count)]
    assert not any(array.flags.aligned or array.flags.writeable for part in parts for array in part.values())
    model.check(model.context(), *parts)


# ---- failures ----


def index(*values):
    return {"index": np.array(values, np.int64)}


def test_a_failed_run_is_an_execution_error_and_the_next_one_works(opened):
    model = opened(gather())
    context = model.context()
    before = model.check(context, index(1, 2))
    for bad in (index(9), index(1, 9)):
        with pytest.raises(ExecutionError, match="9"):
            context.run([bad])
    with pytest.raises(ExecutionError):
        context.run([index(0), index(9)])
    model.check(context, index(1, 2))
    model.check(context, index(3), index(0, 1))
    assert before["y"].tolist() == [1, 2]


def test_a_failed_run_leaves_other_contexts_alone(opened):
    model = opened(gather())
    bad, good = model.context(), model.context()
    with pytest.raises(ExecutionError):
        bad.run([index(9)])
    model.check(good, index(3, 3))


# ---- threads, contexts, time ----


@pytest.mark.parametrize("case", [linear(), identity()], ids=["linear", "identity"])
def test_contexts_on_two_threads_run_at_the_same_time(opened, case):
    model = opened(case)
    barrier = threading.Barrier(2, timeout=30)

    def work(number):
        context = model.engine.create_context(batched=True)
        barrier.wait()
        for turn in range(100):
            model.check(context, *(inputs_of(case, rows, 1000 * number + turn) for rows in (1 + turn % 5, number)))
        context.close()
        return number

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, [1, 2])) == [1, 2]


def test_a_closed_context_leaves_the_others_working(opened):
    case = linear()
    model = opened(case)
    closed = model.engine.create_context(batched=True)
    model.check(closed, inputs_of(case, 2))
    kept = model.context()
    closed.close()
    model.check(kept, inputs_of(case, 3))


def test_a_closed_engine_leaves_another_of_the_same_model_working(backend, tmp_path):
    case = linear()
    model = read_onnx_model(models.save(case.proto, tmp_path / "model.onnx"))
    first, second = (Opened(backend.open(model, case.compute), case.compute) for _ in range(2))
    first.check(first.context(), inputs_of(case, 2))
    first.close()
    second.check(second.context(), inputs_of(case, 2))
    second.close()


def test_contexts_with_and_without_batching_share_an_engine(opened):
    case = linear()
    model = opened(case)
    single, batched = model.context(batched=False), model.context()
    for _ in range(2):
        model.check(single, inputs_of(case, 2))
        model.check(batched, inputs_of(case, 1), inputs_of(case, 2))


@rows_of_a_batch
def test_the_phases_of_a_run_are_within_the_time_it_took(opened, case):
    context = opened(case).context()
    for rows in (1, 1, 50):
        start = time.perf_counter_ns()
        result = context.run([inputs_of(case, rows)])
        took = time.perf_counter_ns() - start
        phases = result.input_ns, result.compute_ns, result.output_ns
        assert all(isinstance(phase, int) and phase >= 0 for phase in phases)
        assert 0 < sum(phases) <= took
