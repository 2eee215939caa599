"""What goes wrong with a TensorRT engine, on the simulated GPU: at load, at run, for good; and what is left then."""

import re
import sys

import numpy as np
import pytest

from tests.models import make_models as models
from tests.support.tensorrt_engines import build
from trtserve_engines.cuda.device_thread import DeviceThread
from trtserve_engines.cuda.errors import CudaError, EventTimeoutError, OutOfDeviceMemoryError, StickyCudaError
from trtserve_engines.errors import BackendUnavailableError, DeviceLostError, DeviceMemoryError, PlanError
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.runtime import TensorRtEngine
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig

pytestmark = [
    pytest.mark.simulated,
    pytest.mark.parametrize("driver", ["cuda-bindings", "pycuda"], indirect=True),
]

ROWS = ("x=1x16:4x16:8x16",)


@pytest.fixture
def plan(driver, tmp_path):
    """A plan of a linear model for up to 8 rows."""
    return build(models.save(models.linear(), tmp_path / "model.onnx"), driver, BuildConfig(profiles=ROWS))


@pytest.fixture
def unbounded(driver, tmp_path):
    """A plan of a model whose output is as long as the data decide."""
    path = models.save(models.nonzero(), tmp_path / "nonzero.onnx")
    return build(path, driver, BuildConfig(profiles=("x=1:1000:10000",)))


def load(plan, driver, instances=1, **options):
    return TensorRtEngine.load(plan, driver=driver, config=RuntimeConfig(**options), instances=instances)


def x(rows, seed=0):
    return {"x": np.random.default_rng(seed).standard_normal((rows, 16)).astype(np.float32)}


def wanted(rows, seed=0):
    return x(rows, seed)["x"] @ np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)


def assert_works(context):
    for rows in (1, 3):
        outputs = context.run([x(rows)]).outputs["y"]
        np.testing.assert_allclose(outputs, wanted(rows), rtol=1e-5, atol=1e-5)


# ---- plans ----


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda plan: plan[:-10], "Corrupt or truncated plan"),
        (lambda plan: plan[:-1] + bytes([plan[-1] ^ 1]), "Corrupt or truncated plan"),
        (lambda plan: plan[:10], "Magic tag does not match"),
        (lambda plan: b"", "Magic tag does not match"),
        (lambda plan: plan[:24] + bytes([9, 0, 0, 0]) + plan[28:], "not compatible with this version of TensorRT"),
    ],
    ids=["truncated", "flipped bit", "header only", "empty", "other version"],
)
def test_a_plan_that_cannot_run_says_why_and_leaves_nothing(cuda, driver, plan, damage, reason):
    before = cuda.live()
    with pytest.raises(PlanError, match=f"cannot load the plan of .* bytes on gpu:0 .*{reason}"):
        load(damage(plan), driver)
    assert cuda.live() == before
    engine = load(plan, driver)
    engine.close()
    assert cuda.live() == before


@pytest.mark.simulated(FAKE_CUDA_DEVICES="2", FAKE_CUDA_NAMES="Big GPU,Small GPU", FAKE_CUDA_CAPABILITIES="90,75")
def test_a_plan_of_another_gpu_is_refused(cuda, driver, plan):
    with pytest.raises(PlanError, match=r"on gpu:1 \(Small GPU\): .*expecting compute 7.5 got compute 9.0"):
        TensorRtEngine.load(plan, driver=driver, gpu=1)


def test_a_gpu_that_is_not_there_is_refused(cuda, driver, plan):
    with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_DEVICE"):
        TensorRtEngine.load(plan, driver=driver, gpu=7)


def test_without_tensorrt_there_is_one_line(cuda, driver, plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    before = cuda.live()
    with pytest.raises(BackendUnavailableError, match="TensorRT is installed but cannot be loaded|is not installed"):
        load(plan, driver)
    assert cuda.live() == before


def no_runtime(logger):
    raise TypeError("pybind11::init(): factory function returned nullptr")


@pytest.mark.parametrize("how", ["an object around nothing", "a null pointer"])
def test_a_driver_that_is_too_old_for_tensorrt_is_one_line(cuda, driver, plan, monkeypatch, how):
    """CUDA works, and yet TensorRT's own CUDA does not: what it gives then crashes the process at first use."""
    before = cuda.live()
    if how == "a null pointer":
        monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", no_runtime)
    else:
        monkeypatch.setattr(sys.modules["tensorrt._runtime"], "device", lambda: None)
    with pytest.raises(BackendUnavailableError, match=r"TensorRT 11.4.* cannot use the GPU: .*; check the driver"):
        load(plan, driver)
    assert cuda.live() == before


# ---- too little memory ----


def test_what_does_not_fit_is_refused_before_it_is_made_with_a_list(cuda, request, driver, plan):
    gib = 1 << 30
    thread = DeviceThread(driver, 0, "hog")
    hog = thread.call(lambda device: device.allocate(device.memory().free - gib))
    request.addfinalizer(thread.close)
    request.addfinalizer(lambda: thread.call(lambda device: hog.free()))
    before = cuda.live()
    with pytest.raises(DeviceMemoryError, match=r"gpu:0 .* has 1.0 GiB of 16.0 GiB free") as caught:
        load(plan, driver, instances=2_000_000)
    assert re.search(
        r"are needed \(weights, as long as the plan, [\d.]+ (KiB|bytes), scratch memory of 2000000 instances [\d.]+ "
        r"GiB, inputs and outputs of 2000000 instances with 2 batches each [\d.]+ GiB\)",
        str(caught.value),
    )
    with pytest.raises(DeviceMemoryError, match="weights, as long as the plan"):
        load(plan, driver, memory_reserve_bytes=gib)
    assert cuda.live() == before
    load(plan, driver, memory_reserve_bytes=gib // 2).close()


CALLS = ("cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuMemcpyHtoDAsync", "cuGraphInstantiate")


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(("kind", "batched"), [("plan", True), ("unbounded", False)], ids=["rows", "unbounded"])
def test_wherever_the_memory_ends_nothing_is_left_and_the_next_try_works(
    cuda, driver, request, function, kind, batched
):
    """The 1st, 2nd, 3rd ... call fails, until there are no more: each leaves as much on the GPU as before."""
    plan = request.getfixturevalue(kind)
    before = cuda.live()
    for nth in range(1, 200):
        cuda.reset()
        cuda.fail(function, 2, nth, times=2)  # pycuda tries a second time
        if opens(plan, driver, batched, cuda, before):
            break
    else:
        pytest.fail(f"{function} is called more than 200 times")
    assert nth > 1 or cuda.calls(function) == 0


def opens(plan, driver, batched, cuda, before):
    """Whether an engine and a context of it could be made; in any case nothing is left."""
    try:
        engine = load(plan, driver)
    except DeviceMemoryError:
        assert cuda.live() == before
        return False
    try:
        engine.create_context(batched=batched).close()
    except DeviceMemoryError:
        return False
    finally:
        engine.close()
        assert cuda.live() == before
    return True


def test_a_run_without_memory_fails_and_the_next_one_works(cuda, driver, unbounded):
    engine = load(unbounded, driver)
    context = engine.create_context(batched=False)
    small, large = np.ones(10, np.float32), np.ones(5000, np.float32)
    for _ in range(2):
        context.run([{"x": small}])
    for function in ("cuMemAlloc", "cuMemHostAlloc"):
        cuda.fail(function, 2, times=2)  # pycuda tries a second time
        with pytest.raises(OutOfDeviceMemoryError, match=function):
            context.run([{"x": large}])
        cuda.reset()
        assert context.run([{"x": small}]).outputs["indices"].shape == (1, 10)
    for _ in range(3):
        assert context.run([{"x": large}]).outputs["indices"].shape == (1, 5000)
    context.close()
    engine.close()


# ---- runs that fail ----


@pytest.mark.parametrize("function", ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamWaitEvent", "cuEventRecord"])
def test_a_launch_that_fails_half_way_leaves_the_next_one_alone(cuda, driver, plan, function):
    engine = load(plan, driver)
    context = engine.create_context(batched=True)
    for nth in (1, 2):
        kept = context.launch([x(4, seed=1)])
        cuda.fail(function, 1, nth if function in ("cuStreamWaitEvent", "cuEventRecord") else 1)
        with pytest.raises(CudaError, match=rf"{function} failed with CUDA_ERROR_INVALID_VALUE \(1\)"):
            context.launch([x(8, seed=2)])
        np.testing.assert_allclose(context.collect(kept).outputs["y"], wanted(4, seed=1), rtol=1e-5, atol=1e-5)
        assert_works(context)
    context.close()
    engine.close()


# ---- a GPU that is lost ----


@pytest.mark.parametrize("code", [700, 719, 46, 999])
def test_a_kernel_that_fails_loses_the_device(lossy, driver, plan, code):
    engine = load(plan, driver)
    contexts = [engine.create_context(batched=True) for _ in range(2)]
    assert_works(contexts[0])
    lossy.fail("kernel", code)
    with pytest.raises(DeviceLostError, match=f"({code})") as caught:
        contexts[0].run([x(1)])
    assert isinstance(caught.value, StickyCudaError)
    for context in contexts:
        with pytest.raises(DeviceLostError, match="start the process again"):
            context.run([x(1)])
    assert_ends_without_a_call(lossy, contexts, engine)


@pytest.mark.parametrize("function", ["cuMemcpyHtoDAsync", "cuEventRecord", "cuEventQuery", "cuLaunchHostFunc"])
def test_a_device_lost_at_any_call_is_a_device_lost(lossy, driver, plan, function):
    engine = load(plan, driver, cuda_graphs=False)
    context = engine.create_context(batched=True)
    lossy.fail(function, 719)
    with pytest.raises(DeviceLostError, match=r"CUDA_ERROR_LAUNCH_FAILED \(719\)"):
        context.run([x(1)])
    assert_ends_without_a_call(lossy, [context], engine)


def test_a_batch_that_never_ends_is_given_up(lossy, driver, plan):
    engine = load(plan, driver, wait_timeout_s=0.2)
    context = engine.create_context(batched=True)
    with lossy.held():
        with pytest.raises(EventTimeoutError, match=r"not finished a batch within 0\.2 s"):
            context.run([x(1)])
        with pytest.raises(DeviceLostError, match="start the process again"):
            context.run([x(1)])
        assert_ends_without_a_call(lossy, [context], engine)


def test_a_device_lost_while_an_instance_starts(lossy, driver, plan):
    engine = load(plan, driver)
    lossy.fail("kernel" if driver.has_graphs else "cuMemcpyHtoDAsync", 719)
    with pytest.raises(DeviceLostError):
        engine.create_context(batched=True)
    assert_ends_without_a_call(lossy, [], engine)


def test_a_device_lost_when_an_instance_is_closed(lossy, driver, plan, caplog):
    engine = load(plan, driver)
    context = engine.create_context(batched=True)
    lossy.fail("cuEventRecord", 719)
    assert_ends_without_a_call(lossy, [context], engine)
    assert "the GPU was lost when an instance was closed" in caplog.text


def assert_ends_without_a_call(cuda, contexts, engine):
    """Closing frees nothing, because each such call could wait for ever, and leaves no context on this thread."""
    frees = ("cuMemFree", "cuMemFreeHost", "cuStreamDestroy", "cuEventDestroy", "cuStreamSynchronize")
    before = [cuda.calls(function) for function in frees]
    for context in contexts:
        context.close()
    engine.close()
    assert [cuda.calls(function) for function in frees] == before
    assert not cuda.has_current_context()
