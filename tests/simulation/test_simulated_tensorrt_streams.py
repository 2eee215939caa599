"""The simulated tensorrt on the stand-in libcuda: its runs are asynchronous, in order, capturable, and use memory."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from tests.models import make_models as models
from trtserve_engines.cuda.errors import CudaError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.builder import build_plan
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.trt_log import tensorrt_log

pytestmark = pytest.mark.simulated

OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719
TIMEOUT_S = 60


@pytest.fixture
def trt():
    return import_tensorrt()


class Rig:
    """An engine for y = factor x, one context, and memory for rows of 4."""

    def __init__(self, trt, device, plan, rows=8):
        self.log = tensorrt_log(trt)
        with self.log.collect() as self.lines:
            self.engine = trt.Runtime(self.log.native).deserialize_cuda_engine(plan)
        self.context = self.engine.create_execution_context()
        self.stream = device.stream()
        self.pinned = [device.pinned(rows * 16) for _ in range(2)]
        self.memory = [device.allocate(rows * 16) for _ in range(2)]
        self.context.set_tensor_address("x", self.memory[0].address)
        self.context.set_tensor_address("y", self.memory[1].address)
        self.x, self.y = (buffer.array.view(np.float32).reshape(rows, 4) for buffer in self.pinned)

    def copy_in(self, rows=8):
        self.stream.copy_to_device(self.memory[0].address, self.pinned[0], rows * 16)

    def copy_out(self, rows=8):
        self.stream.copy_to_host(self.pinned[1], self.memory[1].address, rows * 16)

    def enqueue(self):
        with self.log.collect() as self.lines:
            return self.context.execute_async_v3(self.stream.handle)

    def free(self):
        del self.x, self.y
        for thing in [*self.pinned, *self.memory, self.stream]:
            thing.free()
        del self.context
        del self.engine
        gc.collect()


@pytest.fixture
def device(cuda, driver):
    device = driver.open(0)
    yield device
    gc.collect()
    device.close()


@pytest.fixture
def plan(trt, device, tmp_path):
    path = models.save(models.scale(3), tmp_path / "model.onnx")
    config = with_profiles(BuildConfig(max_batch_size=8), read_onnx_model(path).signature)
    return bytes(build_plan(trt, path, config).plan)


@pytest.fixture
def rig(trt, device, plan):
    rig = Rig(trt, device, plan)
    assert rig.context.set_input_shape("x", (8, 4))
    yield rig
    rig.free()


def test_a_run_has_not_happened_before_the_stream_comes_to_it(cuda, rig):
    rig.x[:], rig.y[:] = 2, -1
    with cuda.held():
        rig.copy_in()
        assert rig.enqueue()
        rig.copy_out()
        assert (rig.y == -1).all()
    rig.stream.synchronize()
    assert (rig.y == 6).all()


def test_a_run_sees_what_was_copied_before_it_in_its_stream(cuda, rig):
    results = []
    for value in (1, 2):
        rig.x[:] = value
        rig.copy_in()
        assert rig.enqueue()
        rig.copy_out()
        rig.stream.synchronize()
        results.append(float(rig.y[0, 0]))
    assert results == [3, 6]


def test_shapes_and_addresses_are_those_of_the_enqueue(cuda, rig):
    rig.x[:], rig.y[:] = 2, -1
    with cuda.held():
        rig.copy_in()
        assert rig.enqueue()
        rig.context.set_input_shape("x", (1, 4))
        rig.copy_out()
    rig.stream.synchronize()
    assert (rig.y == 6).all()


def test_inputs_may_be_overwritten_once_their_event_has_happened(driver, device, rig):
    event = device.event()
    if event.handle is None:
        event.free()
        pytest.skip("pycuda does not tell an event's handle")
    rig.x[:] = 2
    rig.copy_in()
    assert rig.context.set_input_consumed_event(event.handle) and rig.enqueue()
    event.synchronize()
    rig.x[:] = 100
    rig.copy_in()
    rig.copy_out()
    rig.stream.synchronize()
    assert (rig.y == 6).all()
    event.free()


def test_a_run_can_be_captured_and_repeated(cuda, driver, rig):
    if not driver.has_graphs:
        pytest.skip("pycuda has no graphs")
    rig.x[:], rig.y[:] = 2, -1

    def work():
        rig.copy_in()
        assert rig.enqueue()
        rig.copy_out()

    graph = rig.stream.capture(work)
    rig.stream.synchronize()
    assert (rig.y == -1).all()
    for value in (2, 5):
        rig.x[:] = value
        graph.launch(rig.stream)
        rig.stream.synchronize()
        assert (rig.y == 3 * value).all()
    graph.free()


def test_the_context_cannot_run_on_two_streams_at_once(cuda, device, rig):
    other = device.stream()
    with cuda.held():
        assert rig.enqueue()
        with rig.log.collect() as lines:
            assert not rig.context.execute_async_v3(other.handle)
    rig.stream.synchronize()
    assert "still running on another stream" in lines.reason()
    assert rig.context.execute_async_v3(other.handle)
    other.synchronize()
    other.free()


def test_the_default_stream_is_warned_of(rig):
    with rig.log.collect() as lines:
        assert rig.context.execute_async_v3(0)
    assert "default stream" in lines.reason()
    rig.stream.synchronize()


def test_a_launch_that_fails_makes_the_enqueue_false(cuda, rig):
    cuda.fail("cuLaunchHostFunc", LAUNCH_FAILED)
    assert not rig.enqueue() and "cuLaunchHostFunc" in rig.lines.reason()
    cuda.reset()


def test_engines_and_contexts_take_device_memory_and_give_it_back(cuda, trt, device, plan):
    before = cuda.live()["device_bytes"]
    rig = Rig(trt, device, plan)
    weights, scratch = rig.engine.get_engine_stat(), rig.engine.device_memory_size_v2
    assert cuda.live()["device_bytes"] >= before + weights + scratch
    rig.free()
    assert cuda.live()["device_bytes"] == before


@pytest.mark.parametrize("what", ["engine", "context"])
def test_without_memory_there_is_no_engine_and_no_context(cuda, trt, device, plan, what):
    log = tensorrt_log(trt)
    engine = trt.Runtime(log.native).deserialize_cuda_engine(plan)
    cuda.fail("cuMemAlloc", OUT_OF_MEMORY)
    with log.collect() as lines:
        made = (
            engine.create_execution_context()
            if what == "context"
            else trt.Runtime(log.native).deserialize_cuda_engine(plan)
        )
    cuda.reset()
    assert made is None and "OutOfMemory" in lines.reason()
    del engine
    gc.collect()


@pytest.mark.simulated(FAKE_CUDA_DEVICES="2", FAKE_CUDA_NAMES="Big GPU,Small GPU", FAKE_CUDA_CAPABILITIES="90,75")
def test_a_plan_for_another_gpu_is_refused(trt, driver, tmp_path):
    log, found = tensorrt_log(trt), []
    path = models.save(models.scale(3), tmp_path / "model.onnx")
    config = with_profiles(BuildConfig(), read_onnx_model(path).signature)

    def on(index, work):
        def body():
            device = driver.open(index)
            found.append(work())
            device.close()

        thread = threading.Thread(target=body)
        thread.start()
        thread.join(TIMEOUT_S)
        return found.pop()

    plan = on(0, lambda: bytes(build_plan(trt, path, config).plan))
    with log.collect() as lines:
        assert on(1, lambda: trt.Runtime(log.native).deserialize_cuda_engine(plan)) is None
    assert "incompatible device, expecting compute 7.5 got compute 9.0" in lines.reason()


def test_after_a_kernel_that_fails_nothing_works(cuda, trt, device, rig, plan):
    cuda.fail("kernel", LAUNCH_FAILED)
    with cuda.held():  # a run is more than one kernel, and all of it is to be enqueued before the first fails
        assert rig.enqueue()
    with pytest.raises(CudaError):
        rig.stream.synchronize()
    assert not rig.enqueue() and "gave 719" in rig.lines.reason()
    with rig.log.collect() as lines:
        assert trt.Runtime(rig.log.native).deserialize_cuda_engine(plan) is None
    assert "gave 719" in lines.reason()
    cuda.reset()
