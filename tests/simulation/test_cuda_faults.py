"""What goes wrong on a GPU, on the stand-in: failing calls, lost devices, events that never fire; and what is left."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.simulation.fake_cuda import Kernel
from trtserve_engines.cuda.errors import (
    CudaError,
    EventTimeoutError,
    OutOfDeviceMemoryError,
    StickyCudaError,
)
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.cuda.waiting import wait_for_event
from trtserve_engines.errors import BackendUnavailableError, DeviceLostError

pytestmark = pytest.mark.simulated


@pytest.fixture
def device(cuda, driver):
    opened = driver.open(0)
    yield opened
    cuda.reset()
    opened.close()


def test_what_was_made_is_counted_and_all_of_it_is_given_back(cuda, driver):
    before = cuda.live()
    device = driver.open(0)
    things = [device.stream(), device.event(), device.pinned(10), device.allocate(1000)]
    more = {kind: count - before[kind] for kind, count in cuda.live().items() if count != before[kind]}
    assert more.pop("device_bytes") == 1000
    assert more == dict.fromkeys(["device", "pinned", "stream", "event", "context", "pushed"], 1)
    for thing in things:
        thing.free()
    device.close()
    assert cuda.live() == before


def test_threads_leave_no_context_behind(cuda, driver):
    before = cuda.live()

    def work():
        for _ in range(3):
            device = driver.open(0)
            device.allocate(10).free()
            device.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cuda.live() == before


def test_graphs_leave_nothing_behind(cuda):
    device = open_driver("cuda-bindings").open(0)
    before, stream, host, memory = cuda.live(), device.stream(), device.pinned(1), device.allocate(1)
    graph = stream.capture(lambda: stream.copy_to_device(memory.address, host, 1))
    assert (cuda.live()["graph"], cuda.live()["graph_exec"]) == (before["graph"], before["graph_exec"] + 1)
    with pytest.raises(CudaError):
        stream.capture(lambda: device.allocate(5))
    cuda.fail("cuGraphInstantiate", 2)
    with pytest.raises(OutOfDeviceMemoryError):
        stream.capture(lambda: stream.copy_to_device(memory.address, host, 1))
    for thing in (graph, stream, host, memory):
        thing.free()
    assert cuda.live() == before
    device.close()


def test_a_missing_wait_is_a_wrong_result(cuda, device):
    """What the stand-in is for: streams run beside each other, so that only a wait brings order."""
    host, back, memory = device.pinned(1), device.pinned(1), device.allocate(1)
    one, other, event = device.stream(), device.stream(), device.event()
    host.array[:] = 7
    release = threading.Event()
    slow = Kernel(lambda _: 0 if release.wait(60) else 999)
    cuda.launch(one.handle, slow)
    one.copy_to_device(memory.address, host, 1)
    event.record(one)
    other.copy_to_host(back, memory.address, 1)
    other.synchronize()
    assert back.array[0] != 7
    assert not event.query()
    release.set()
    other.wait_for(event)
    other.copy_to_host(back, memory.address, 1)
    other.synchronize()
    assert back.array[0] == 7
    for thing in (one, other, event, host, back, memory):
        thing.free()


@pytest.mark.parametrize("code", [1, 801])
@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("cuMemAlloc", lambda device: device.allocate(1)),
        ("cuMemHostAlloc", lambda device: device.pinned(1)),
        ("cuStreamCreate", lambda device: device.stream()),
        ("cuEventCreate", lambda device: device.event()),
        ("cuMemGetInfo", lambda device: device.memory()),
    ],
)
def test_a_failed_call_names_itself_and_the_next_one_works(cuda, device, function, call, code):
    cuda.fail(function, code)
    with pytest.raises(CudaError, match=function) as caught:
        call(device)
    assert caught.value.code == code
    assert not isinstance(caught.value, DeviceLostError)
    made = call(device)
    if hasattr(made, "free") and callable(made.free):
        made.free()


@pytest.mark.parametrize("code", [46, 214, 700, 702, 710, 716, 719, 999])
def test_a_sticky_error_says_that_the_device_is_lost(cuda, driver, code):
    device = driver.open(0)
    stream, event = device.stream(), device.event()
    cuda.fail("cuEventRecord", code)
    with pytest.raises(StickyCudaError) as caught:
        event.record(stream)
    assert isinstance(caught.value, DeviceLostError)
    assert caught.value.code == code
    with pytest.raises(StickyCudaError):
        device.allocate(1)
    cuda.reset()
    for thing in (stream, event):
        thing.free()
    device.close()


def test_a_kernel_that_fails_is_seen_where_it_is_waited_for(cuda, device):
    stream, event = device.stream(), device.event()
    bad = Kernel(lambda _: 700)
    cuda.launch(stream.handle, bad)
    with pytest.raises(StickyCudaError, match=r"CUDA_ERROR_ILLEGAL_ADDRESS \(700\)"):
        stream.synchronize()
    with pytest.raises(StickyCudaError):
        event.record(stream)
    cuda.reset()
    for thing in (stream, event):
        thing.free()


def test_an_event_that_never_fires_is_given_up(cuda, device):
    stream, event = device.stream(), device.event()
    with cuda.held():
        event.record(stream)
        with pytest.raises(EventTimeoutError, match=r"has not finished a batch within 0\.05 s"):
            wait_for_event(event, timeout_s=0.05)
    wait_for_event(event, timeout_s=60)
    for thing in (stream, event):
        thing.free()


def test_memory_ends_where_the_gpu_s_does(cuda, device):
    free = device.memory().free
    most = device.allocate(free - 100)
    assert device.memory().free == 100
    with pytest.raises(OutOfDeviceMemoryError):
        device.allocate(101)
    most.free()
    assert device.memory().free == free


SHARE = """
import sys
from trtserve_engines.cuda.open_driver import open_driver
import numpy as np
device = open_driver(sys.argv[1]).open(0)
memory = device.allocate(4)
device.write(memory.address, np.array([1, 2, 3, 4], np.uint8))
print(memory.ipc_handle().hex(), flush=True)
sys.stdin.readline()
back = np.empty(4, np.uint8)
device.read(back, memory.address)
print(*back)
memory.free()
device.close()
"""


def test_memory_of_another_process_is_opened_by_its_handle(cuda, device, driver):
    other = subprocess.Popen(
        [sys.executable, "-c", SHARE, driver.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    shared = device.open_ipc(bytes.fromhex(other.stdout.readline()))
    back = np.empty(4, np.uint8)
    device.read(back, shared.address)
    assert back.tolist() == [1, 2, 3, 4]
    device.write(shared.address + 1, np.array([9, 9], np.uint8))
    assert other.communicate("\n", timeout=60)[0].split() == ["1", "9", "9", "4"]
    shared.free()
    assert cuda.live()["ipc"] == 0


# ---- several GPUs, or none ----


@pytest.mark.simulated(FAKE_CUDA_DEVICES="2", FAKE_CUDA_NAMES="Big GPU,Small GPU", FAKE_CUDA_CAPABILITIES="90,75")
def test_gpus_differ_and_work_beside_each_other(cuda, driver):
    big, small = driver.gpus()
    assert (big.identity.name, small.identity.name) == ("Big GPU", "Small GPU")
    assert (big.identity.compute_capability, small.identity.compute_capability) == ((9, 0), (7, 5))
    assert big.pci_bus_id != small.pci_bus_id
    first = driver.open(0)
    before = first.memory().free
    memory = first.allocate(1000)

    def on_the_second():
        second = driver.open(1)
        free.append(second.memory().free)
        lasting = second.allocate(10)
        free.append(second.memory().free)
        lasting.free()
        second.close()

    free = []
    thread = threading.Thread(target=on_the_second)
    thread.start()
    thread.join()
    assert free[0] - free[1] == 10
    assert before - first.memory().free == 1000
    memory.free()
    first.close()


@pytest.mark.simulated(FAKE_CUDA_DEVICES="0")
@pytest.mark.parametrize("wish", ["auto", "pycuda", "cuda-bindings"])
def test_a_machine_without_a_gpu_says_so(wish):
    with pytest.raises(BackendUnavailableError, match=r"CUDA cannot be used: .*this machine has no NVIDIA GPU"):
        open_driver(wish)


@pytest.mark.simulated(LD_LIBRARY_PATH="")
@pytest.mark.parametrize("wish", ["auto", "pycuda", "cuda-bindings"])
def test_a_machine_without_a_driver_says_so(wish):
    with pytest.raises(BackendUnavailableError, match=r"there is no usable NVIDIA driver \(libcuda.so.1\)"):
        open_driver(wish)


@pytest.mark.simulated(PYTHONPATH="")
@pytest.mark.parametrize(
    ("wish", "command"),
    [
        ("auto", "install '"),
        ("pycuda", r"install 'trtserve\[pycuda"),
        ("cuda-bindings", r"install 'trtserve\[tensorrt"),
    ],
)
def test_a_package_that_is_missing_is_named_with_how_to_get_it(wish, command):
    with pytest.raises(BackendUnavailableError, match=rf"it is not installed; install it with: pip {command}"):
        open_driver(wish)


def test_graphs_are_preferred(cuda):
    assert open_driver("auto").name == "cuda-bindings"
    assert open_driver("auto").has_graphs
    assert not open_driver("pycuda").has_graphs
