"""TensorRT engines on a real GPU: the suite that every engine passes, and what only a GPU can show."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.conformance import test_engine_conformance as suite
from tests.models import make_models as models
from tests.support.tensorrt_engines import build
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.runtime import TensorRtEngine
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig

pytestmark = pytest.mark.gpu

# The suite takes its `backend` from this file, because fixtures are looked up where tests are collected.
opened = suite.opened
globals().update({name: value for name, value in vars(suite).items() if name.startswith("test_")})

IMAGE = ("image=1x3x64x64:16x3x64x64:16x3x64x64",)


@pytest.fixture
def backend(driver):
    import_or_skip()
    return suite.tensorrt(driver.name)


@pytest.fixture
def plan(driver, tmp_path):
    """A convolutional net for up to 16 images."""
    import_or_skip()
    path = models.save(models.convnet(), tmp_path / "convnet.onnx")
    return build(path, driver, BuildConfig(profiles=IMAGE, tf32=False))


@pytest.fixture
def engine(driver, plan):
    """Opens the net with other options."""
    engines = []

    def load(**options):
        engines.append(TensorRtEngine.load(plan, driver=driver, config=RuntimeConfig(**options)))
        return engines[-1]

    yield load
    for each in engines:
        each.close()


def import_or_skip():
    try:
        import_tensorrt()
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def images(rows, seed=0):
    return {"image": np.random.default_rng(seed).standard_normal((rows, 3, 64, 64)).astype(np.float32)}


def test_graphs_and_plain_runs_give_the_same_numbers(driver, engine):
    contexts = [engine(cuda_graphs=on).create_context(batched=True) for on in (True, False)]
    assert [context.has_graphs for context in contexts] == [driver.has_graphs, False]
    for rows in (1, 3, 8, 16, 1):
        outputs = [context.run([images(rows)]).outputs["logits"] for context in contexts]
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    for context in contexts:
        context.close()


def test_a_launch_returns_before_the_gpu_is_done_and_two_batches_overlap(engine):
    """Two batches in flight take less time than one after the other: the host works while the GPU does."""
    context = engine().create_context(batched=True)
    parts = [images(16)]
    for _ in range(20):
        context.run(parts)

    def one_by_one():
        for _ in range(100):
            context.run(parts)

    def two_in_flight():
        waiting = context.launch(parts)
        for _ in range(99):
            following = context.launch(parts)
            context.collect(waiting)
            waiting = following
        context.collect(waiting)

    def seconds(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    pairs = [(seconds(two_in_flight), seconds(one_by_one)) for _ in range(5)]
    assert sorted(two / one for two, one in pairs)[2] < 1
    context.close()


def test_four_instances_give_the_same_as_one(engine):
    loaded = engine()
    alone = loaded.create_context(batched=True)
    wanted = [alone.run([images(1 + seed % 16, seed)]).outputs["logits"] for seed in range(20)]
    alone.close()
    barrier = threading.Barrier(4, timeout=120)

    def work(number):
        context = loaded.create_context(batched=True)
        barrier.wait()
        for seed in range(20):
            outputs = context.run([images(1 + seed % 16, seed)]).outputs["logits"]
            np.testing.assert_allclose(outputs, wanted[seed], rtol=1e-4, atol=1e-5)
        context.close()
        return number

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == [0, 1, 2, 3]


def test_an_engine_gives_its_memory_back(driver, plan):
    device = driver.open(0)
    free = []
    for _ in range(3):  # the first time TensorRT and the driver set up what they keep
        loaded = TensorRtEngine.load(plan, driver=driver)
        loaded.create_context(batched=True).close()
        loaded.close()
        free.append(device.memory().free)
    # Other processes may come and go on a shared GPU; what an engine would leave is all its weights and scratch memory.
    assert free[0] - free[-1] < 16 << 20
    device.close()
