"""The rules of the CUDA port that need no CUDA: which package, which error, how long to pause, whose device."""

import threading

import pytest

from trtserve_engines.cuda.errors import (
    STICKY_CODES,
    CudaError,
    DeviceOwnershipError,
    OutOfDeviceMemoryError,
    StickyCudaError,
    cuda_error,
)
from trtserve_engines.cuda.open_driver import CUDA_DRIVERS, PREFERRED, choose_driver
from trtserve_engines.cuda.ownership import DevicesOfThreads
from trtserve_engines.cuda.waiting import next_pause_s
from trtserve_engines.errors import BackendUnavailableError, DeviceLostError


@pytest.mark.parametrize(
    ("wish", "broken", "chosen"),
    [
        ("auto", [], "cuda-bindings"),
        ("auto", ["pycuda"], "cuda-bindings"),
        ("auto", ["cuda-bindings"], "pycuda"),
        ("pycuda", [], "pycuda"),
        ("pycuda", ["cuda-bindings"], "pycuda"),
        ("cuda-bindings", ["pycuda"], "cuda-bindings"),
        ("auto", ["cuda-bindings", "pycuda"], None),
        ("pycuda", ["pycuda"], None),
        ("cuda-bindings", ["cuda-bindings"], None),
    ],
)
def test_the_rule_of_choice(wish, broken, chosen):
    assert wish in CUDA_DRIVERS
    problems = {name: f"{name} is broken" if name in broken else "" for name in PREFERRED}
    if chosen:
        assert choose_driver(wish, problems) == chosen
        return
    with pytest.raises(BackendUnavailableError) as caught:
        choose_driver(wish, problems)
    assert all(f"{name} is broken" in str(caught.value) for name in broken)


def test_each_code_has_its_class():
    assert type(cuda_error("cuX", 1, "NAME", "text")) is CudaError
    assert type(cuda_error("cuX", 2, "NAME", "text")) is OutOfDeviceMemoryError
    for code in STICKY_CODES:
        error = cuda_error("cuX", code, "NAME", "text")
        assert type(error) is StickyCudaError and isinstance(error, DeviceLostError)
        assert str(error) == f"cuX failed with NAME ({code}): text"


@pytest.mark.parametrize(
    ("waited", "expected", "pause"),
    [
        (0, 0, 20e-6),  # nothing known: look often at first
        (1e-3, 0, 20e-6),
        (64e-3, 0, 1e-3),  # and less often in a long wait
        (10, 0, 1e-3),
        (0, 64e-3, 60e-3),  # most of what is expected, at once
        (60e-3, 64e-3, 1e-3),  # then carefully
        (0, 1e-5, 20e-6),
    ],
)
def test_pauses_are_long_while_nothing_is_to_be_expected(waited, expected, pause):
    assert next_pause_s(waited, expected) == pytest.approx(pause)


def test_a_wait_of_any_length_takes_few_questions():
    for length in (1e-4, 1e-3, 1e-2, 0.1):
        waited, questions = 0.0, 0
        while waited < length:
            waited += next_pause_s(waited, length)
            questions += 1
        assert questions < 12
        assert waited < length * 1.02 + 20e-6


class Recorder:
    """What is started and ended, in order."""

    def __init__(self):
        self.said = []
        self.devices = DevicesOfThreads(self.start, self.end)

    def start(self, index):
        if index == 13:
            raise RuntimeError("no such GPU")
        self.said.append(f"start {index}")
        return index

    def end(self, device):
        self.said.append(f"end {device}")


def test_the_first_open_starts_and_the_last_close_ends():
    recorder = Recorder()
    for _ in range(2):
        recorder.devices.open(3)
    recorder.devices.close()
    assert recorder.said == ["start 3"]
    recorder.devices.close()
    assert recorder.said == ["start 3", "end 3"]
    with pytest.raises(DeviceOwnershipError, match="has not open"):
        recorder.devices.close()


def test_an_open_that_fails_leaves_nothing_open():
    recorder = Recorder()
    with pytest.raises(RuntimeError):
        recorder.devices.open(13)
    recorder.devices.open(1)
    recorder.devices.close()
    assert recorder.said == ["start 1", "end 1"]


def test_each_thread_has_its_own():
    recorder = Recorder()
    recorder.devices.open(0)
    with pytest.raises(DeviceOwnershipError, match="one GPU at a time"):
        recorder.devices.open(1)
    thread = threading.Thread(target=lambda: (recorder.devices.open(1), recorder.devices.close()))
    thread.start()
    thread.join()
    recorder.devices.close()
    assert recorder.said == ["start 0", "start 1", "end 1", "end 0"]


def test_what_is_abandoned_is_not_ended():
    recorder = Recorder()
    for _ in range(2):
        recorder.devices.open(0)
    assert recorder.devices.forget()
    assert not recorder.devices.forget()
    recorder.devices.open(1)
    recorder.devices.close()
    assert recorder.said == ["start 0", "start 1", "end 1"]
