"""One suite for every adapter of the CUDA port: what cuda/api.py promises, on the stand-in.

tests/gpu runs it on a real one. What only the stand-in can be told to do (to fail, to hang) is in tests/simulation.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trtserve_engines.cuda.errors import CudaError, DeviceOwnershipError, OutOfDeviceMemoryError
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.cuda.waiting import wait_for_event

NAMES = ("cuda-bindings", "pycuda")


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.simulated) for name in NAMES])
def driver(request):
    return open_driver(request.param)


@pytest.fixture
def device(driver):
    """GPU 0, open on the test's thread; what a test makes of it goes before it."""
    opened = driver.open(0)
    yield opened
    opened.close()


@pytest.fixture
def made(device):
    """Makes things of the device and frees them in the opposite order."""
    things = []

    def make(kind, *arguments, **options):
        things.append(getattr(device, kind)(*arguments, **options))
        return things[-1]

    yield make
    for thing in reversed(things):
        thing.free()


def pinned(made, values):
    """Pinned memory that holds the values."""
    array = np.asarray(values, np.uint8)
    buffer = made("pinned", len(array))
    buffer.array[:] = array
    return buffer


# ---- GPUs ----


def test_a_gpu_says_what_it_is(driver):
    for index, gpu in enumerate(driver.gpus()):
        identity = gpu.identity
        assert gpu.index == index
        assert identity.name == identity.name.strip("\0 ") != ""
        assert identity.compute_capability >= (5, 0)
        assert identity.sm_count > 0
        assert identity.memory_bytes > 1 << 28
        assert identity.driver_version >= (12, 0)
        assert gpu.pci_bus_id.count(":") == 2
        assert gpu.uuid.startswith("GPU-") and len(gpu.uuid) == 40
    assert len({gpu.uuid for gpu in driver.gpus()}) == len(driver.gpus())


def test_both_packages_tell_the_same_of_a_gpu(driver):
    assert open_driver("pycuda").gpus() == open_driver("cuda-bindings").gpus()


def test_the_same_driver_is_opened_each_time(driver):
    assert open_driver(driver.name) is driver


def test_memory_is_told(device):
    memory = device.memory()
    assert 0 < memory.free <= memory.total


# ---- a device and its thread ----


def test_a_thread_may_open_its_gpu_again(driver):
    first, second = driver.open(0), driver.open(0)
    first.close()
    second.allocate(16).free()
    second.close()
    with pytest.raises(DeviceOwnershipError, match="once"):
        second.close()


def test_a_thread_gets_no_second_gpu_beside_the_first(driver, device):
    with pytest.raises(DeviceOwnershipError, match="asked for GPU 1 while it has GPU 0 open"):
        driver.open(1)


def test_a_gpu_that_does_not_exist_is_refused_and_the_next_one_opens(driver):
    with pytest.raises(CudaError, match=r"cuDeviceGet .*CUDA_ERROR_INVALID_DEVICE \(101\)"):
        driver.open(1000)
    driver.open(0).close()


def test_threads_work_beside_each_other(driver):
    barrier = threading.Barrier(4, timeout=60)

    def work(number):
        device = driver.open(0)
        stream, host, memory, back = device.stream(), device.pinned(4096), device.allocate(4096), device.pinned(4096)
        barrier.wait()
        for turn in range(20):
            host.array[:] = (number * 20 + turn) % 256
            stream.copy_to_device(memory.address, host, 4096)
            stream.copy_to_host(back, memory.address, 4096)
            stream.synchronize()
            assert (back.array == host.array).all()
        for thing in (back, memory, host, stream):
            thing.free()
        device.close()
        return number

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == [0, 1, 2, 3]


# ---- memory and copies ----


@pytest.mark.parametrize("size", [1, 255, 4096, 1 << 20])
def test_memory_is_aligned_and_as_long_as_wanted(made, size):
    host, memory = made("pinned", size), made("allocate", size)
    assert host.array.shape == (size,) and host.array.dtype == np.uint8
    assert (host.array.ctypes.data, host.address % 256) == (host.address, 0)
    assert (memory.size, memory.address % 256) == (size, 0)


def test_nothing_is_a_size_too(made):
    host, memory, stream = made("pinned", 0), made("allocate", 0), made("stream")
    assert (host.array.size, memory.size) == (0, 0)
    assert memory.address != 0
    stream.copy_to_device(memory.address, host, 0)
    stream.synchronize()


def test_bytes_come_back_as_they_went(made):
    values = np.random.default_rng(0).integers(0, 256, 100_000)
    source, target = pinned(made, values), made("pinned", 100_000)
    memory, stream = made("allocate", 100_000), made("stream")
    stream.copy_to_device(memory.address, source, 100_000)
    stream.copy_to_host(target, memory.address, 100_000)
    stream.synchronize()
    assert (target.array == values).all()


def test_parts_are_copied_from_and_to_offsets(made):
    source, target = pinned(made, range(10)), pinned(made, [0] * 10)
    memory, stream = made("allocate", 512), made("stream")
    stream.copy_to_device(memory.address + 256, source, 4, offset=3)
    stream.copy_to_host(target, memory.address + 256, 3, offset=5)
    stream.synchronize()
    assert target.array.tolist() == [0, 0, 0, 0, 0, 3, 4, 5, 0, 0]


def test_copies_on_the_device(made):
    source, target, stream = pinned(made, [1, 2, 3]), made("pinned", 3), made("stream")
    one, other = made("allocate", 3), made("allocate", 3)
    stream.copy_to_device(one.address, source, 3)
    stream.copy_on_device(other.address, one.address, 3)
    stream.copy_to_host(target, other.address, 3)
    stream.synchronize()
    assert target.array.tolist() == [1, 2, 3]


def test_arrays_are_written_and_read_without_pinned_memory(device, made):
    memory = made("allocate", 400)
    there, back = np.arange(100, dtype=np.float32), np.empty(100, np.float32)
    device.write(memory.address, there)
    device.read(back, memory.address)
    assert (back == there).all()


def test_more_memory_than_there_is_is_refused_and_the_next_allocation_works(device, made):
    with pytest.raises(
        OutOfDeviceMemoryError, match=r"cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY \(2\)"
    ) as caught:
        device.allocate(1 << 46)
    assert (caught.value.code, caught.value.name) == (2, "CUDA_ERROR_OUT_OF_MEMORY")
    made("allocate", 16)


def test_a_handle_that_nobody_gave_is_refused(device):
    with pytest.raises(CudaError, match="cuIpcOpenMemHandle"):
        device.open_ipc(b"\1" * 64)


def test_a_handle_has_64_bytes(made):
    assert len(made("allocate", 256).ipc_handle()) == 64


# ---- events ----


def test_a_fresh_event_has_happened(made):
    event = made("event")
    assert event.query()
    event.synchronize()


def test_an_event_happens_behind_the_work_before_it(made):
    source, target = pinned(made, [7] * 1000), pinned(made, [0] * 1000)
    memory, stream, event = made("allocate", 1000), made("stream"), made("event")
    stream.copy_to_device(memory.address, source, 1000)
    stream.copy_to_host(target, memory.address, 1000)
    event.record(stream)
    wait_for_event(event, timeout_s=60)
    assert target.array.tolist() == [7] * 1000
    assert event.query()


def test_a_stream_waits_for_the_event_of_another(made):
    source, target = pinned(made, [7] * 1000), pinned(made, [0] * 1000)
    memory, one, other, event = made("allocate", 1000), made("stream"), made("stream"), made("event")
    for value in range(20):
        source.array[:] = value
        one.copy_to_device(memory.address, source, 1000)
        event.record(one)
        other.wait_for(event)
        other.copy_to_host(target, memory.address, 1000)
        other.synchronize()
        assert target.array.tolist() == [value] * 1000


def test_the_time_between_events_is_told(made):
    source, memory, stream = made("pinned", 1 << 20), made("allocate", 1 << 20), made("stream")
    start, end = made("event", timing=True), made("event", timing=True)
    start.record(stream)
    stream.copy_to_device(memory.address, source, 1 << 20)
    end.record(stream)
    end.synchronize()
    assert 0 < end.milliseconds_since(start) < 10_000


def test_events_without_timing_tell_no_time(made):
    stream, start, end = made("stream"), made("event"), made("event")
    for event in (start, end):
        event.record(stream)
    stream.synchronize()
    with pytest.raises(CudaError, match="INVALID_HANDLE"):
        end.milliseconds_since(start)


def test_handles_are_told_where_the_package_knows_them(driver, made):
    assert made("stream").handle != 0
    handle = made("event").handle
    assert handle is None if driver.name == "pycuda" else isinstance(handle, int) and handle != 0


# ---- graphs ----


def test_a_graph_repeats_what_was_captured(driver, made):
    source, target = pinned(made, [1]), pinned(made, [0])
    memory, stream, other = made("allocate", 1), made("stream"), made("stream")

    def enqueue():
        stream.copy_to_device(memory.address, source, 1)
        stream.copy_to_host(target, memory.address, 1)

    if not driver.has_graphs:
        with pytest.raises(CudaError, match="no CUDA graphs"):
            stream.capture(enqueue)
        return
    graph = stream.capture(enqueue)
    stream.synchronize()
    assert target.array.tolist() == [0]
    for number, on in enumerate([stream, other, stream], start=5):
        source.array[:] = number
        graph.launch(on)
        on.synchronize()
        assert target.array.tolist() == [number]
    graph.free()


def test_a_capture_that_fails_leaves_the_stream_as_it_was(driver, made):
    if not driver.has_graphs:
        pytest.skip("pycuda has no graphs")
    source, memory, stream = pinned(made, [1]), made("allocate", 1), made("stream")

    def fails():
        stream.copy_to_device(memory.address, source, 1)
        raise RuntimeError("not capturable")

    with pytest.raises(RuntimeError, match="not capturable"):
        stream.capture(fails)
    with pytest.raises(CudaError, match="CAPTURE"):
        stream.capture(stream.synchronize)
    stream.copy_to_device(memory.address, source, 1)
    stream.synchronize()
    stream.capture(lambda: stream.copy_to_device(memory.address, source, 1)).free()
