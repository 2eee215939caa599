"""The CUDA port on a real GPU: the suite that the stand-in passes, and what only a GPU can show."""

import numpy as np
import pytest

from tests.conformance import test_cuda_port as suite
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import BackendUnavailableError

pytestmark = pytest.mark.gpu

# The suite takes its `driver` from this folder, because fixtures are looked up where tests are collected.
device, made = suite.device, suite.made
globals().update({name: value for name, value in vars(suite).items() if name.startswith("test_")})

MIB = 1 << 20


def test_both_packages_tell_the_same_of_a_gpu(driver):
    try:
        drivers = [open_driver(name) for name in suite.NAMES]
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    assert drivers[0].gpus() == drivers[1].gpus()


def timed(made, stream, enqueue):
    """Milliseconds between two events around what `enqueue` puts on the stream."""
    start, end = made("event", timing=True), made("event", timing=True)
    start.record(stream)
    enqueue()
    end.record(stream)
    end.synchronize()
    return end.milliseconds_since(start)


def test_copies_in_both_directions_overlap(made):
    """By the events' times: both together take clearly less than one after the other."""
    size = 256 * MIB
    up, down, there, back = (made(kind, size) for kind in ("pinned", "pinned", "allocate", "allocate"))
    one, other, begin, joined = made("stream"), made("stream"), made("event"), made("event")

    def upload():
        one.copy_to_device(there.address, up, size)

    def download():
        other.copy_to_host(down, back.address, size)

    def both():
        begin.record(one)
        other.wait_for(begin)
        upload()
        download()
        joined.record(other)
        one.wait_for(joined)

    both()
    one.synchronize()
    alone = timed(made, one, upload) + timed(made, other, download)
    assert timed(made, one, both) < 0.8 * alone


def test_a_copy_overlaps_work_on_the_device(made):
    """Copies within the device stand for compute: they need its multiprocessors or copy engines, not the bus."""
    size = 256 * MIB
    up, there, source, target = (made(kind, size) for kind in ("pinned", "allocate", "allocate", "allocate"))
    copies, compute, begin, joined = made("stream"), made("stream"), made("event"), made("event")

    def upload():
        copies.copy_to_device(there.address, up, size)

    def work():
        for _ in range(60):
            compute.copy_on_device(target.address, source.address, size)

    def both():
        begin.record(copies)
        compute.wait_for(begin)
        upload()
        work()
        joined.record(compute)
        copies.wait_for(joined)

    both()
    copies.synchronize()
    alone = timed(made, copies, upload) + timed(made, compute, work)
    assert timed(made, copies, both) < 0.9 * alone


def test_four_streams_keep_their_results_apart(made):
    lanes = [
        (made("stream"), made("pinned", MIB), made("allocate", MIB), made("pinned", MIB), np.random.default_rng(seed))
        for seed in range(4)
    ]
    for _ in range(50):
        for stream, up, memory, down, random in lanes:
            up.array[:] = random.integers(0, 256, MIB, np.uint8)
            stream.copy_to_device(memory.address, up, MIB)
            stream.copy_to_host(down, memory.address, MIB)
        for stream, up, _, down, _ in lanes:
            stream.synchronize()
            assert (up.array == down.array).all()


def test_a_graph_of_copies_repeats_on_the_gpu(driver, made):
    if not driver.has_graphs:
        pytest.skip("pycuda has no graphs")
    stream, up, down, memory = made("stream"), made("pinned", MIB), made("pinned", MIB), made("allocate", MIB)

    def enqueue():
        stream.copy_to_device(memory.address, up, MIB)
        stream.copy_to_host(down, memory.address, MIB)

    graph = stream.capture(enqueue)
    for turn in range(20):
        up.array[:] = turn
        graph.launch(stream)
        stream.synchronize()
        assert (down.array == turn).all()
    graph.free()
