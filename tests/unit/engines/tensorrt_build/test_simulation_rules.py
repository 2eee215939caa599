"""The simulated tensorrt refuses what the real one refuses: None or False, and the reason in the logger only."""

import json
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models

ALIGNMENT = 256


class Log:
    """Collects what TensorRT says; derives from the ILogger of the module that is simulated."""

    def __new__(cls, trt):
        class Collecting(trt.ILogger):
            def __init__(self):
                trt.ILogger.__init__(self)
                self.lines = []

            def log(self, severity, msg):
                self.lines.append((severity.name, msg))

            def errors(self):
                return [message for severity, message in self.lines if severity == "ERROR"]

        return Collecting()


@pytest.fixture
def log(trt):
    return Log(trt)


def network_of(trt, log, model):
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse(model.SerializeToString())
    return builder, network, builder.create_builder_config()


def plan_of(trt, log, model, *profiles, **options):
    builder, network, config = network_of(trt, log, model)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, *shape)
        config.add_optimization_profile(profile)
    for flag in options.get("flags", ()):
        config.set_flag(getattr(trt.BuilderFlag, flag))
    return builder.build_serialized_network(network, config)


ROWS = {"x": ((1, 16), (4, 16), (8, 16))}


@pytest.fixture
def engine(trt, log):
    return trt.Runtime(log).deserialize_cuda_engine(plan_of(trt, log, models.linear(), ROWS))


@pytest.fixture
def context(engine):
    return engine.create_execution_context()


def device_array(shape, dtype=np.float32):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % ALIGNMENT
    return memory[offset : offset + size].view(dtype).reshape(shape)


def bind(context, **arrays):
    for name, array in arrays.items():
        assert context.set_tensor_address(name, array.ctypes.data)


class TestBuild:
    def test_a_dynamic_network_needs_a_profile(self, trt, log):
        assert plan_of(trt, log, models.linear()) is None
        assert "no optimization profile has been defined" in log.errors()[-1]

    def test_a_profile_must_agree_with_the_network(self, trt, log):
        assert plan_of(trt, log, models.linear(), {"x": ((1, 15), (1, 15), (1, 15))}) is None
        assert "does not agree" in log.errors()[-1]

    def test_a_profile_out_of_order_raises(self, trt, log):
        profile = trt.Builder(log).create_optimization_profile()
        with pytest.raises(RuntimeError, match="inconsistent"):
            profile.set_shape("x", (8, 16), (4, 16), (1, 16))

    def test_an_empty_profile_is_not_added(self, trt, log):
        builder, _, config = network_of(trt, log, models.linear())
        assert config.add_optimization_profile(builder.create_optimization_profile()) == -1

    def test_the_parser_names_node_operator_and_reason(self, trt, log):
        node = helper.make_node("Det", ["x"], ["y"], name="det/1")
        model = models.model([node], [models.tensor("x", [2, 2])], [models.tensor("y", [])])
        network = trt.Builder(log).create_network(0)
        parser = trt.OnnxParser(network, log)
        assert not parser.parse(model.SerializeToString())
        error = parser.get_error(0)
        assert (error.node(), error.node_name(), error.node_operator()) == (0, "det/1", "Det")
        assert error.code() == trt.ErrorCode.UNSUPPORTED_NODE and "Plugin not found" in error.desc()

    def test_a_file_that_is_no_model_is_refused(self, trt, log, tmp_path):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"\xff" * 40)
        parser = trt.OnnxParser(trt.Builder(log).create_network(0), log)
        assert not parser.parse_from_file(str(path))
        assert parser.get_error(0).code() == trt.ErrorCode.MODEL_DESERIALIZE_FAILED

    def test_an_exception_of_the_monitor_cancels(self, trt, log, capfd):
        class Monitor(trt.IProgressMonitor):
            def __init__(self):
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase, parent, steps):
                pass

            def step_complete(self, phase, step):
                raise KeyError("no")

            def phase_finish(self, phase):
                pass

        builder, network, config = network_of(trt, log, models.add([4]))
        config.progress_monitor = Monitor()
        assert builder.build_serialized_network(network, config) is None
        assert "cancelled" in log.errors()[-1] and "KeyError" in capfd.readouterr().err

    def test_a_monitor_that_was_not_initialised_is_refused(self, trt, log):
        class Monitor(trt.IProgressMonitor):
            def __init__(self):
                pass

        with pytest.raises(TypeError, match="must be called"):
            network_of(trt, log, models.add([4]))[2].progress_monitor = Monitor()


class TestPlan:
    @pytest.mark.parametrize("damage", [lambda plan: plan[:-3], lambda plan: plan[:40] + b"!" + plan[41:]])
    def test_a_damaged_plan_is_refused(self, trt, log, damage):
        plan = damage(bytes(plan_of(trt, log, models.linear(), ROWS)))
        assert trt.Runtime(log).deserialize_cuda_engine(plan) is None
        assert "Corrupt or truncated" in log.errors()[-1]

    def test_a_file_that_is_no_plan_is_refused(self, trt, log):
        assert trt.Runtime(log).deserialize_cuda_engine(b"no plan") is None
        assert "Magic tag" in log.errors()[-1]

    def test_a_plan_of_another_version_is_refused(self, trt, log):
        plan = bytearray(bytes(plan_of(trt, log, models.linear(), ROWS)))
        plan[25] -= 1
        assert trt.Runtime(log).deserialize_cuda_engine(plan) is None
        assert "not compatible with this version of TensorRT" in log.errors()[-1]

    def test_a_version_compatible_plan_needs_leave_to_run_its_code(self, trt, log):
        plan = bytearray(bytes(plan_of(trt, log, models.linear(), ROWS, flags=["VERSION_COMPATIBLE"])))
        plan[25] -= 1
        runtime = trt.Runtime(log)
        assert runtime.deserialize_cuda_engine(plan) is None
        runtime.engine_host_code_allowed = True
        assert runtime.deserialize_cuda_engine(plan) is not None

    def test_the_header_is_that_of_a_real_plan(self, trt, log, generation):
        plan = bytes(plan_of(trt, log, models.linear(), ROWS))
        assert plan[:8] == b"ftrt\0\0\0\0"
        assert ".".join(map(str, plan[24:28])) == trt.__version__


class TestContext:
    def test_it_computes(self, context):
        x, y = device_array((3, 16)), device_array((3, 8))
        x[:] = np.random.default_rng(0).standard_normal(x.shape)
        assert context.set_input_shape("x", (3, 16)) and tuple(context.get_tensor_shape("y")) == (3, 8)
        bind(context, x=x, y=y)
        assert context.infer_shapes() == [] and context.execute_async_v3(1)
        weights = models.linear().graph.initializer[0]
        expected = x @ np.frombuffer(weights.raw_data, np.float32).reshape(16, 8)
        np.testing.assert_allclose(y, expected, rtol=1e-5)

    def test_shapes_must_be_set(self, context, log):
        bind(context, x=device_array((3, 16)), y=device_array((3, 8)))
        assert context.infer_shapes() == ["x"] and not context.execute_async_v3(1)
        assert "Not all shapes are specified: x" in log.errors()[-1]

    @pytest.mark.parametrize("shape", [(9, 16), (0, 16), (3, 15), (3, 16, 1)])
    def test_shapes_outside_the_profile_are_refused(self, context, log, shape):
        assert not context.set_input_shape("x", shape)
        assert log.errors()

    def test_addresses_must_be_set(self, context, log):
        context.set_input_shape("x", (3, 16))
        bind(context, x=device_array((3, 16)))
        assert not context.execute_async_v3(1)
        assert "Address is not set for tensor y" in log.errors()[-1]

    def test_addresses_must_be_aligned(self, context, log):
        assert not context.set_tensor_address("x", device_array((3, 16)).ctypes.data + 4)
        assert "not aligned" in log.errors()[-1]

    def test_names_must_be_known(self, context, log):
        assert not context.set_tensor_address("z", ALIGNMENT) and not context.set_input_shape("z", (1,))
        assert len(log.errors()) == 2

    def test_a_profile_that_is_not_there_raises(self, context):
        with pytest.raises(RuntimeError):
            context.set_optimization_profile_async(1, 1)

    def test_numbers_beyond_int32_raise(self, context):
        with pytest.raises(RuntimeError, match="cast"):
            context.set_input_shape("x", (2**31, 16))

    def test_the_users_memory_must_be_given(self, trt, engine, log):
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        context.set_input_shape("x", (3, 16))
        bind(context, x=device_array((3, 16)), y=device_array((3, 8)))
        assert not context.execute_async_v3(1) and "Device memory is not set" in log.errors()[-1]
        scratch = device_array((engine.device_memory_size_v2,), np.uint8)
        context.set_device_memory(scratch.ctypes.data, scratch.nbytes)
        assert context.execute_async_v3(1)

    def test_profile_shapes_are_for_inputs_only(self, engine):
        assert [tuple(shape) for shape in engine.get_tensor_profile_shape("x", 0)] == list(ROWS["x"])
        with pytest.raises(ValueError):
            tuple(engine.get_tensor_profile_shape("y", 0)[0])

    def test_the_inspector_speaks_json(self, trt, engine):
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        assert json.loads(text)["Layers"] == ["MatMul"]


def output_allocator(trt, give=True, meanwhile=None):
    class Allocator(trt.IOutputAllocator):
        def __init__(self):
            trt.IOutputAllocator.__init__(self)
            self.memory = self.shape = None

        def reallocate_output_async(self, name, memory, size, alignment, stream):
            if meanwhile:
                meanwhile()
            self.memory = device_array((max(size, 1),), np.uint8)
            return self.memory.ctypes.data if give else 0

        def notify_shape(self, name, dims):
            self.shape = tuple(dims)

    return Allocator()


class TestDataDependentShapes:
    @pytest.fixture
    def context(self, trt, log):
        plan = plan_of(trt, log, models.nonzero(), {"x": ((1,), (4,), (8,))})
        context = trt.Runtime(log).deserialize_cuda_engine(plan).create_execution_context()
        self.x = device_array((4,))
        self.x[:] = [0, 5, 0, 7]
        context.set_input_shape("x", (4,))
        bind(context, x=self.x)
        return context

    def test_the_allocator_makes_room_and_hears_the_shape(self, trt, context):
        allocator = output_allocator(trt)
        context.set_output_allocator("indices", allocator)
        assert tuple(context.get_tensor_shape("indices")) == (1, -1)
        assert context.execute_async_v3(1)
        assert allocator.shape == (1, 2)
        assert allocator.memory[:16].view(np.int64).tolist() == [1, 3]
        assert context.get_max_output_size("indices") == 4 * 8

    def test_an_empty_output_still_asks_for_memory(self, trt, context):
        self.x[:] = 0
        allocator = output_allocator(trt)
        context.set_output_allocator("indices", allocator)
        assert context.execute_async_v3(1) and allocator.shape == (1, 0) and allocator.memory is not None

    def test_without_an_allocator_it_is_refused(self, context, log):
        bind(context, indices=device_array((1, 8), np.int64))
        assert not context.execute_async_v3(1) and "Neither address or allocator" in log.errors()[-1]

    def test_an_allocator_without_memory_fails_the_run(self, trt, context, log):
        context.set_output_allocator("indices", output_allocator(trt, give=False))
        assert not context.execute_async_v3(1) and "gave no memory" in log.errors()[-1]

    def test_a_second_thread_at_once_is_refused(self, trt, context, log):
        seen = []

        def from_another_thread():
            thread = threading.Thread(target=lambda: seen.append(context.execute_async_v3(1)))
            thread.start()
            thread.join()

        context.set_output_allocator("indices", output_allocator(trt, meanwhile=from_another_thread))
        assert context.execute_async_v3(1)
        assert seen == [False] and any("two threads at once" in error for error in log.errors())


class TestShapeInputs:
    @pytest.fixture
    def context(self, trt, log):
        node = helper.make_node("Reshape", ["x", "target"], ["y"])
        inputs = [models.tensor("x", [12]), models.tensor("target", [2], TensorProto.INT64)]
        model = models.model([node], inputs, [models.tensor("y", [None, None])])
        builder, network, config = network_of(trt, log, model)
        profile = builder.create_optimization_profile()
        profile.set_shape_input("target", (1, 1), (3, 4), (12, 12))
        config.add_optimization_profile(profile)
        engine = trt.Runtime(log).deserialize_cuda_engine(builder.build_serialized_network(network, config))
        assert engine.is_shape_inference_io("target")
        assert engine.get_tensor_location("target") == trt.TensorLocation.HOST
        assert engine.get_tensor_profile_values(0, "target") == [[1, 1], [3, 4], [12, 12]]
        self.x, self.y = device_array((12,)), device_array((12,))
        self.x[:] = range(12)
        context = engine.create_execution_context()
        bind(context, x=self.x, y=self.y)
        return context

    def test_values_are_read_from_the_host_at_enqueue(self, context):
        target = np.array([2, 6], np.int64)
        assert context.set_tensor_address("target", target.ctypes.data)
        assert tuple(context.get_tensor_shape("y")) == (2, 6) and context.execute_async_v3(1)
        assert self.y.tolist() == list(range(12))

    def test_values_outside_the_profile_are_refused(self, context, log):
        target = np.array([0, 13], np.int64)
        assert context.set_tensor_address("target", target.ctypes.data)
        assert not context.execute_async_v3(1) and "exceed" in log.errors()[-1]


def test_the_first_logger_stays_the_processs_one(trt, log):
    trt.Builder(log)
    other = Log(trt)
    trt.Builder(other)
    assert other.lines == [] and any("differs from one already registered" in message for _, message in log.lines)


def test_without_a_driver_a_builder_cannot_be_made(trt, log, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["tensorrt._cuda"], "_open", lambda: None)
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        trt.Builder(log)
    assert log.errors() == ["CUDA initialization failure with error: 35"]
