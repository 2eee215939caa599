"""The fallback rule: what serves where, for every wish on every kind of machine."""

import pytest

from trtserve_engines.backend_choice import Choice, choose_backend, parse_device
from trtserve_engines.config import ConfigError
from trtserve_engines.device import GpuIdentity
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.machine import Machine

GPU = GpuIdentity("NVIDIA L4", (8, 9), 58, 24 << 30, (13, 0))
NO_GPU = "no CUDA driver was found"
NO_TENSORRT = "the package tensorrt is not installed"
NO_CUDA = "the installed onnxruntime has no CUDA provider"

BARE = Machine(gpu_problem=NO_GPU, tensorrt_problem=NO_TENSORRT, onnxruntime_cuda_problem=NO_CUDA)
FULL = Machine((GPU, GPU), onnxruntime_cuda_problem=NO_CUDA)
BOTH = Machine((GPU, GPU))
PLAIN_GPU = Machine((GPU, GPU), tensorrt_problem=NO_TENSORRT, onnxruntime_cuda_problem=NO_CUDA)
CUDA_ONLY = Machine((GPU, GPU), tensorrt_problem=NO_TENSORRT)
ASKED = "it was asked for"
TRT_ASKED = "backend tensorrt was asked for"
ORT_ASKED = "backend onnxruntime was asked for on the device"


@pytest.mark.parametrize(
    ("machine", "backend", "device", "choice"),
    [
        (BARE, "auto", "auto", Choice("onnxruntime", (), f"TensorRT cannot be used: {NO_GPU}")),
        (PLAIN_GPU, "auto", "auto", Choice("onnxruntime", (), f"TensorRT cannot be used: {NO_TENSORRT}")),
        (FULL, "auto", "auto", Choice("tensorrt", (0, 1), "there are a GPU and TensorRT")),
        (BARE, "auto", "cpu", Choice("onnxruntime", (), "the device cpu was asked for")),
        (FULL, "auto", "cpu", Choice("onnxruntime", (), "the device cpu was asked for")),
        (FULL, "auto", "gpu", Choice("tensorrt", (0, 1), "device gpu was asked for")),
        (FULL, "auto", "gpu:1", Choice("tensorrt", (1,), "device gpu:1 was asked for")),
        (CUDA_ONLY, "auto", "gpu:1,0", Choice("onnxruntime", (1, 0), f"TensorRT cannot be used: {NO_TENSORRT}")),
        (FULL, "tensorrt", "auto", Choice("tensorrt", (0, 1), TRT_ASKED)),
        (FULL, "tensorrt", "gpu", Choice("tensorrt", (0, 1), TRT_ASKED)),
        (FULL, "tensorrt", "gpu:1", Choice("tensorrt", (1,), TRT_ASKED)),
        (BARE, "onnxruntime", "auto", Choice("onnxruntime", (), ASKED)),
        (FULL, "onnxruntime", "auto", Choice("onnxruntime", (), ASKED)),
        (FULL, "onnxruntime", "cpu", Choice("onnxruntime", (), "the device cpu was asked for")),
        (BOTH, "onnxruntime", "gpu", Choice("onnxruntime", (0, 1), f"{ORT_ASKED} gpu")),
        (BOTH, "onnxruntime", "gpu:0", Choice("onnxruntime", (0,), f"{ORT_ASKED} gpu:0")),
    ],
)
def test_what_serves_where_and_why(machine, backend, device, choice):
    assert choose_backend(backend, device, machine) == choice


@pytest.mark.parametrize(
    ("machine", "backend", "device", "message"),
    [
        (BARE, "tensorrt", "auto", f"{TRT_ASKED}, but {NO_GPU}; use --backend onnxruntime or --backend auto"),
        (BARE, "tensorrt", "gpu:0", f"{TRT_ASKED}, but {NO_GPU}"),
        (BARE, "auto", "gpu", f"device gpu was asked for, but {NO_GPU}"),
        (BARE, "onnxruntime", "gpu:0", f"{ORT_ASKED} gpu:0, but {NO_GPU}"),
        (PLAIN_GPU, "tensorrt", "auto", f"{TRT_ASKED}, but {NO_TENSORRT}; use --backend onnxruntime"),
        (PLAIN_GPU, "auto", "gpu", f"device gpu was asked for, but {NO_TENSORRT}, and {NO_CUDA}"),
        (FULL, "onnxruntime", "gpu", f"{ORT_ASKED} gpu, but {NO_CUDA}; install"),
        (FULL, "tensorrt", "cpu", "backend tensorrt was asked for on the device cpu"),
        (FULL, "tensorrt", "gpu:2", f"{TRT_ASKED}, but this machine has gpu:0 to gpu:1 and no gpu:2"),
        (Machine((GPU,)), "auto", "gpu:1", "device gpu:1 was asked for, but this machine has only gpu:0"),
    ],
)
def test_what_was_asked_for_by_name_is_never_replaced(machine, backend, device, message):
    with pytest.raises(BackendUnavailableError, match=message):
        choose_backend(backend, device, machine)


@pytest.mark.parametrize(
    ("device", "parsed"),
    [
        ("auto", ("auto", ())),
        ("cpu", ("cpu", ())),
        ("gpu", ("gpu", ())),
        ("gpu:0", ("gpu", (0,))),
        ("gpu:2,0", ("gpu", (2, 0))),
    ],
)
def test_devices_are_read(device, parsed):
    assert parse_device(device) == parsed


@pytest.mark.parametrize("device", ["", "gpus", "gpu:", "gpu:a", "gpu:0,", "gpu:-1", "cpu:0", "GPU", "gpu:0,0"])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(ConfigError, match="device = "):
        parse_device(device)


def test_a_choice_names_its_devices():
    assert [Choice("x", gpus, "").device for gpus in ((), (0,), (1, 0))] == ["cpu", "gpu:0", "gpu:1,0"]
