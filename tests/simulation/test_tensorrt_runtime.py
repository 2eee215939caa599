"""The TensorRT runtime on the simulated GPU: shapes, profiles, graphs, batches in flight, several GPUs.

What every engine promises is in tests/conformance; what goes wrong is in test_tensorrt_faults.py.
"""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from tests.simulation.fake_cuda import Kernel
from tests.support.tensorrt_engines import build
from trtserve_engines.config import ConfigError, OnnxRuntimeOptions
from trtserve_engines.errors import ExecutionError, SignatureError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.runtime import TensorRtEngine
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig

pytestmark = [
    pytest.mark.simulated,
    pytest.mark.parametrize("driver", ["cuda-bindings", "pycuda"], indirect=True),
]

ROWS = ("x=1x16:4x16:8x16",)


class Gpu:
    """Engines and contexts of one test, closed in the promised order at its end."""

    def __init__(self, driver, folder):
        self.driver = driver
        self.folder = folder
        self.things = []

    def engine(self, proto, profiles=(), gpu=0, profiling_verbosity="layer_names_only", **options):
        path = models.save(proto, self.folder / f"{len(self.things)}.onnx")
        config = BuildConfig(profiles=profiles, profiling_verbosity=profiling_verbosity)
        plan = build(path, self.driver, config, gpu)
        engine = TensorRtEngine.load(plan, driver=self.driver, gpu=gpu, config=RuntimeConfig(**options))
        self.things.append(engine)
        return engine

    def context(self, proto, profiles=(), batched=True, **options):
        return self.context_of(self.engine(proto, profiles, **options), batched)

    def context_of(self, engine, batched=True):
        self.things.append(engine.create_context(batched=batched))
        return self.things[-1]

    def close(self):
        for thing in reversed(self.things):
            thing.close()


@pytest.fixture
def gpu(cuda, driver, tmp_path):
    opened = Gpu(driver, tmp_path)
    yield opened
    cuda.reset()
    opened.close()


def x(rows, width=16, seed=0):
    return {"x": np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)}


def linear(inputs):
    weights = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    return inputs["x"] @ weights


def assert_linear(result, *parts):
    wanted = linear({"x": np.concatenate([part["x"] for part in parts])})
    np.testing.assert_allclose(result.outputs["y"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("built", "run"),
    [("detailed", "LAYER_NAMES_ONLY"), ("layer_names_only", "LAYER_NAMES_ONLY"), ("none", "NONE")],
)
def test_details_for_the_inspector_do_not_slow_down_the_runs(gpu, built, run):
    """TensorRT would emit them at each enqueue too."""
    context = gpu.context(models.linear(), ROWS, profiling_verbosity=built)
    native = [each._native for slot in context._slots for each in slot.contexts]
    assert {each.nvtx_verbosity.name for each in native} == {run}


# ---- graphs ----


def test_graphs_and_plain_runs_give_the_same(cuda, gpu):
    with_graphs = gpu.context(models.linear(), ROWS)
    without = gpu.context(models.linear(), ROWS, cuda_graphs=False)
    assert with_graphs.has_graphs == gpu.driver.has_graphs
    assert not without.has_graphs
    launched = cuda.calls("cuGraphLaunch")
    for rows in (1, 2, 3, 5, 8, 1):
        outputs = [context.run([x(rows)]).outputs["y"] for context in (with_graphs, without)]
        assert outputs[0].tolist() == outputs[1].tolist()
    assert cuda.calls("cuGraphLaunch") - launched == (6 if gpu.driver.has_graphs else 0)


def test_every_graph_has_run_before_the_first_request(cuda, gpu):
    """A graph is brought to the GPU by its first launch, which takes longer."""
    if not gpu.driver.has_graphs:
        pytest.skip("pycuda has no graphs")
    gpu.context(models.linear(), ROWS, pipeline_depth=2)
    assert cuda.calls("cuGraphLaunch") == 2 * len((1, 2, 4, 8))


def test_each_batch_is_one_launch_and_pads_to_its_bucket(cuda, gpu):
    if not gpu.driver.has_graphs:
        pytest.skip("pycuda has no graphs")
    context = gpu.context(models.linear(), ROWS, batch_buckets=(4,))
    before = cuda.copied("HtoD")
    for rows, bucket in ((1, 4), (3, 4), (4, 4), (5, 8), (8, 8)):
        kernels = cuda.calls("kernel")
        assert_linear(context.run([x(rows)]), x(rows))
        assert cuda.copied("HtoD") - before == bucket * 16 * 4
        assert cuda.calls("kernel") - kernels == 2  # of one run of the simulated engine
        before = cuda.copied("HtoD")


def test_only_the_rows_that_were_asked_for_come_back(cuda, gpu):
    context = gpu.context(models.linear(), ROWS)
    before = cuda.copied("DtoH")
    assert context.run([x(1), x(2)]).outputs["y"].shape == (3, 8)
    assert cuda.copied("DtoH") - before == 3 * 8 * 4


def test_padding_holds_nothing_of_earlier_requests(gpu):
    """With a model whose rows see each other: what fills a batch up is the same whatever ran before."""
    context = gpu.context(models.mixes_rows(), ("x=1x4:4x4:8x4",))
    asked = x(3, 4, seed=1)
    seen = []
    for seed in (2, 3, 4):
        context.run([x(8, 4, seed)])
        seen.append(context.run([asked]).outputs["y"].tolist())
    assert seen[0] == seen[1] == seen[2]


def test_a_model_of_fixed_shape_has_one_graph(cuda, gpu):
    context = gpu.context(models.identity(dims=[2, 3]), batched=False)
    assert context.has_graphs == gpu.driver.has_graphs
    part = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert context.run([part]).outputs["y"].tolist() == part["x"].tolist()


def test_buckets_outside_the_profiles_are_refused(cuda, gpu):
    engine = gpu.engine(models.linear(), ROWS, batch_buckets=(9,))
    if not gpu.driver.has_graphs:
        gpu.context_of(engine)
        return
    before = cuda.live()
    with pytest.raises(ConfigError, match="batch_buckets has 9, but the engine was built for 1 to 8 rows"):
        engine.create_context(batched=True)
    assert cuda.live() == before


def test_a_capture_that_fails_means_plain_runs(cuda, gpu, caplog):
    if not gpu.driver.has_graphs:
        pytest.skip("pycuda has no graphs")
    engine = gpu.engine(models.linear(), ROWS)
    before = cuda.live()
    cuda.fail("cuStreamEndCapture", 900, nth=3)
    context = gpu.context_of(engine)
    assert not context.has_graphs
    assert "runs without CUDA graphs: cuStreamEndCapture failed" in caplog.text
    assert_linear(context.run([x(3)]), x(3))
    assert [cuda.live()[kind] for kind in ("graph", "graph_exec")] == [before["graph"], before["graph_exec"]]


def test_more_than_rows_may_vary_and_then_there_are_no_graphs(gpu):
    context = gpu.context(models.identity(), ("x=1x1:4x8:8x16",))
    assert not context.has_graphs
    for rows, width in ((1, 1), (8, 16), (3, 5), (1, 1)):
        part = x(rows, width)
        assert context.run([part]).outputs["y"].tolist() == part["x"].tolist()


# ---- profiles ----


def test_each_shape_runs_under_a_profile_that_holds_it(gpu):
    context = gpu.context(models.identity(), ("x=1x4:2x4:4x4", "x=1x4:16x4:64x4", "x=1x100:2x100:4x100"))
    for rows, width in ((1, 4), (4, 4), (5, 4), (64, 4), (4, 100), (2, 4)):
        part = x(rows, width)
        assert context.run([part]).outputs["y"].tolist() == part["x"].tolist()
    for rows, width in ((65, 4), (5, 100), (1, 5), (0, 4)):
        with pytest.raises(SignatureError, match=rf"x {rows}x{width} given; the engine was built for x 1x4"):
            context.run([x(rows, width)])
    assert context.run([x(2, 4)]).outputs["y"].tolist() == x(2, 4)["x"].tolist()


def test_an_engine_knows_how_many_rows_it_takes(gpu):
    assert gpu.engine(models.linear(), ROWS).max_rows == 8
    assert gpu.engine(models.linear(), ("x=1x16:4x16:8x16", "x=1x16:16x16:40x16")).max_rows == 40
    assert gpu.engine(models.identity(dims=[2, 3])).max_rows is None


# ---- shapes that values make ----


def reshape():
    """y = x in the shape that the second input names."""
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    inputs = [models.tensor("x", [12]), models.tensor("shape", [2], TensorProto.INT64)]
    return models.model([node], inputs, [models.tensor("y", [None, None])])


def test_an_input_may_be_read_as_a_shape(gpu):
    context = gpu.context(reshape(), ("shape=1x1:3x4:12x12",), batched=False)
    assert not context.has_graphs
    values = np.arange(12, dtype=np.float32)
    for shape in ((3, 4), (12, 1), (1, 12), (3, 4), (2, 6)):
        outputs = context.run([{"x": values, "shape": np.array(shape, np.int64)}]).outputs
        assert outputs["y"].tolist() == values.reshape(shape).tolist()


def test_values_outside_the_profile_are_refused(gpu):
    context = gpu.context(reshape(), ("shape=1x1:3x4:6x12",), batched=False)
    with pytest.raises(SignatureError, match="shape 12x1 given; the engine was built for"):
        context.run([{"x": np.zeros(12, np.float32), "shape": np.array([12, 1], np.int64)}])


def cut_out():
    """y = x from the second input on to the third."""
    node = helper.make_node("Slice", ["x", "start", "end"], ["y"])
    ends = [models.tensor(name, [1], TensorProto.INT64) for name in ("start", "end")]
    return models.model([node], [models.tensor("x", [12]), *ends], [models.tensor("y", [None])])


def cut(start, end):
    values = {"x": np.arange(12, dtype=np.float32), "start": np.array([start]), "end": np.array([end])}
    return [values]


def test_an_output_may_be_largest_for_the_smallest_values(gpu):
    context = gpu.context(cut_out(), ("start=0:4:10 end=12:12:12",), batched=False)
    for start in (0, 10, 5, 1):
        assert context.run(cut(start, 12)).outputs["y"].tolist() == list(range(start, 12))


def test_an_output_that_was_not_expected_to_be_so_large_is_refused(gpu):
    """Nothing may be written behind its room; the next run is as good as ever."""
    context = gpu.context(cut_out(), ("start=0:5:10 end=3:6:12",), batched=False)
    assert context.run(cut(5, 6)).outputs["y"].tolist() == [5]
    with pytest.raises(ExecutionError, match=r"shape \[12\], which is 48 bytes; .* measured to be 12"):
        context.run(cut(0, 12))
    assert context.run(cut(0, 3)).outputs["y"].tolist() == [0, 1, 2]


def test_outputs_whose_size_the_data_decides_grow_with_them(cuda, gpu):
    context = gpu.context(models.nonzero(), ("x=1:1000:10000",), batched=False)
    assert not context.has_graphs
    for count in (3, 0, 700, 5000, 10, 10000, 1):
        values = np.zeros(10000, np.float32)
        values[:count] = 1
        assert context.run([{"x": values}]).outputs["indices"].tolist() == [list(range(count))]
    for count in [10000] * 4 + [3, 5000, 10000, 1]:
        if count == 3:
            live = cuda.live()  # each of the two slots has grown as far as it can
        context.run([{"x": np.ones(count, np.float32)}])
    assert cuda.live() == live


# ---- copies ----


def test_input_bytes_are_copied_once_on_the_host(cuda, gpu):
    """Into pinned memory that was there before, and from it to the GPU; no other array of their size is made."""
    rows, width = 64, 4096
    context = gpu.context(models.identity(dims=("batch", width)), (f"x=1x{width}:{rows}x{width}:{rows}x{width}",))
    parts = [x(rows // 4, width, seed) for seed in range(4)]
    size = sum(part["x"].nbytes for part in parts)
    context.run(parts)
    pinned, before = cuda.live()["pinned"], cuda.copied("HtoD")
    with cuda.held():  # else the simulated kernel's own memory would be counted
        tracemalloc.start()
        pending = context.launch(parts)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < size / 16
    for part in parts:
        part["x"][:] = -1  # needed no longer
    result = context.collect(pending)
    assert cuda.copied("HtoD") - before == size
    assert cuda.live()["pinned"] == pinned
    wanted = np.concatenate([x(rows // 4, width, seed)["x"] for seed in range(4)])
    assert (result.outputs["y"] == wanted).all()


# ---- batches in flight ----


def test_two_batches_are_on_their_way_at_once(gpu):
    context = gpu.context(models.linear(), ROWS)
    assert context.depth == 2
    first, second = context.launch([x(2, seed=1)]), context.launch([x(3, seed=2)])
    with pytest.raises(ExecutionError, match="2 batches are on their way already"):
        context.launch([x(1)])
    assert_linear(context.collect(first), x(2, seed=1))
    third = context.launch([x(1, seed=3)])
    assert_linear(context.collect(second), x(3, seed=2))
    assert_linear(context.collect(third), x(1, seed=3))


@pytest.mark.parametrize("depth", [1, 3])
def test_the_depth_is_configured(gpu, depth):
    context = gpu.context(models.linear(), ROWS, pipeline_depth=depth)
    for turn in range(3):
        launched = [(x(1, seed=seed), context.launch([x(1, seed=seed)])) for seed in range(turn, turn + depth)]
        for part, pending in launched:
            assert_linear(context.collect(pending), part)


def test_a_batch_is_copied_to_the_gpu_while_another_computes(cuda, gpu):
    context = gpu.context(models.linear(), ROWS)
    release = threading.Event()
    slow = Kernel(lambda _: 0 if release.wait(60) else 999)
    cuda.launch(context.compute_stream, slow)
    first, second = context.launch([x(2, seed=1)]), context.launch([x(3, seed=2)])
    second.slot.uploaded.synchronize()  # its inputs are on the GPU
    assert not first.slot.computed.query()
    release.set()
    assert_linear(context.collect(first), x(2, seed=1))
    assert_linear(context.collect(second), x(3, seed=2))


def test_a_context_closes_with_batches_in_flight(cuda, gpu):
    engine = gpu.engine(models.linear(), ROWS)
    before = cuda.live()
    context = engine.create_context(batched=True)
    context.launch([x(1)])
    context.launch([x(2)])
    context.close()
    assert cuda.live() == before


# ---- instances ----


def test_eight_contexts_work_beside_each_other(cuda, gpu):
    engine = gpu.engine(models.linear(), ROWS)
    barrier = threading.Barrier(8, timeout=60)

    def work(number):
        context = engine.create_context(batched=True)
        barrier.wait()
        last = None
        for turn in range(15):
            part = x(1 + (number + turn) % 8, seed=100 * number + turn)
            pending = part, context.launch([part])
            if last:
                assert_linear(context.collect(last[1]), last[0])
            last = pending
        assert_linear(context.collect(last[1]), last[0])
        context.close()
        return number

    before = cuda.live()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == list(range(8))
    assert cuda.live() == before


def test_engines_leave_no_thread_behind(driver, cuda, tmp_path):
    before = threading.active_count()
    gpu = Gpu(driver, tmp_path)
    gpu.context(models.linear(), ROWS)
    gpu.close()
    assert threading.active_count() == before


@pytest.mark.simulated(FAKE_CUDA_DEVICES="2", FAKE_CUDA_NAMES="Big GPU,Small GPU", FAKE_CUDA_CAPABILITIES="90,75")
def test_engines_work_on_two_gpus(cuda, gpu):
    engines = [gpu.engine(models.scale(factor), ("x=1x4:4x4:8x4",), gpu=index) for index, factor in enumerate((2, 3))]
    assert [engine.device for engine in engines] == ["gpu:0", "gpu:1"]
    barrier = threading.Barrier(4, timeout=60)

    def work(number):
        context = engines[number % 2].create_context(batched=True)
        barrier.wait()
        for turn in range(10):
            part = x(1 + turn % 8, 4, seed=turn)
            outputs = context.run([part]).outputs["y"]
            assert outputs.tolist() == (part["x"] * np.float32(2 + number % 2)).tolist()
        context.close()
        return number

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == list(range(4))


# ---- numbers ----


@pytest.mark.simulated(SIMULATED_TENSORRT_VERSION="10.16")
def test_a_convolution_gives_onnx_runtime_s_numbers_on_tensorrt_10_too(cuda, gpu, tmp_path):
    assert_like_onnx_runtime(gpu, tmp_path)


def test_a_convolution_gives_onnx_runtime_s_numbers(cuda, gpu, tmp_path):
    assert_like_onnx_runtime(gpu, tmp_path)


def assert_like_onnx_runtime(gpu, folder):
    proto = models.convnet(size=8, channels=4, depth=2)
    model = read_onnx_model(models.save(proto, folder / "reference.onnx"))
    reference = OnnxRuntimeEngine.load(model, OnnxRuntimeOptions(intra_op_threads=1))
    expected = reference.create_context(batched=True)
    context = gpu.context(proto, ("image=1x3x8x8:4x3x8x8:8x3x8x8",))
    random = np.random.default_rng(0)
    for sizes in ((1,), (2, 1), (3, 5), (8,)):
        parts = [{"image": random.standard_normal((rows, 3, 8, 8)).astype(np.float32)} for rows in sizes]
        wanted, got = expected.run(parts).outputs["logits"], context.run(parts).outputs["logits"]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    expected.close()
    reference.close()


@pytest.mark.parametrize(
    ("elem_type", "dtype"),
    [(TensorProto.BFLOAT16, ml_dtypes.bfloat16), (TensorProto.FLOAT16, np.float16), (TensorProto.BOOL, np.bool_)],
)
def test_types_that_are_not_single_precision_are_padded_too(gpu, elem_type, dtype):
    context = gpu.context(models.identity(elem_type, ("batch", 3)), ("x=1x3:4x3:4x3",))
    part = {"x": np.array([[1, 0, 1]] * 3).astype(dtype)}
    output = context.run([part]).outputs["y"]
    assert output.dtype == dtype and output.tolist() == part["x"].tolist()
