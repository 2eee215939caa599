"""Which backend executes a model, and where: the fallback rule, as one pure function of wishes and facts."""

from __future__ import annotations

from typing import NamedTuple

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.machine import Machine

_ASKED = "it was asked for"


class Choice(NamedTuple):
    """The backend that will serve, the numbers of the GPUs that it serves on (none: the CPU), and why."""

    backend: str
    gpus: tuple[int, ...]
    reason: str

    @property
    def device(self) -> str:
        """The devices in the words of the option: "cpu" or "gpu:0,1"."""
        return f"gpu:{','.join(map(str, self.gpus))}" if self.gpus else "cpu"


def parse_device(device: str) -> tuple[str, tuple[int, ...]]:
    """What `device` asks for: "auto", "cpu" or "gpu", and the numbers of GPUs it names. Raises ConfigError."""
    kind, colon, text = device.partition(":")
    if device in ("auto", "cpu", "gpu"):
        return device, ()
    numbers = text.split(",")
    if kind != "gpu" or not colon or not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"device = {device!r}; wanted is auto, cpu, gpu or gpu: with numbers, for example gpu:0,1")
    if len({int(number) for number in numbers}) != len(numbers):
        raise ConfigError(f"device = {device!r} names a GPU twice")
    return "gpu", tuple(map(int, numbers))


def choose_backend(backend: str, device: str, machine: Machine) -> Choice:
    """The fallback rule. `backend` is one of BACKENDS, `device` as parse_device takes it.

    Only "auto" ever falls back; what was asked for by name is served or refused (BackendUnavailableError). "gpu"
    without numbers means every GPU.
    """
    kind, numbers = parse_device(device)
    if backend == "tensorrt":
        if kind == "cpu":
            raise BackendUnavailableError(
                "backend tensorrt was asked for on the device cpu, but TensorRT runs on GPUs only;"
                " use --device auto, or --backend onnxruntime"
            )
        return _tensorrt(numbers, machine, "backend tensorrt was asked for")
    if kind == "cpu":
        return Choice("onnxruntime", (), "the device cpu was asked for")
    if backend == "onnxruntime":
        return _onnxruntime_on_gpu(device, numbers, machine) if kind == "gpu" else Choice(backend, (), _ASKED)
    if kind == "gpu":
        return _any_on_gpu(device, numbers, machine)
    problem = machine.gpu_problem or machine.tensorrt_problem
    if problem:
        return Choice("onnxruntime", (), f"TensorRT cannot be used: {problem}")
    return Choice("tensorrt", tuple(range(len(machine.gpus))), "there are a GPU and TensorRT")


def _any_on_gpu(device: str, numbers: tuple[int, ...], machine: Machine) -> Choice:
    asked = f"device {device} was asked for"
    if not machine.tensorrt_problem:
        return _tensorrt(numbers, machine, asked)
    gpus = _gpus(numbers, machine, asked)
    if not machine.onnxruntime_cuda_problem:
        return Choice("onnxruntime", gpus, f"TensorRT cannot be used: {machine.tensorrt_problem}")
    raise BackendUnavailableError(
        f"{asked}, but {machine.tensorrt_problem}, and {machine.onnxruntime_cuda_problem};"
        " install one of them, or use --device cpu"
    )


def _tensorrt(numbers: tuple[int, ...], machine: Machine, asked: str) -> Choice:
    gpus = _gpus(numbers, machine, asked)
    if machine.tensorrt_problem:
        raise BackendUnavailableError(
            f"{asked}, but {machine.tensorrt_problem}; use --backend onnxruntime or --backend auto to serve without it"
        )
    return Choice("tensorrt", gpus, asked)


def _onnxruntime_on_gpu(device: str, numbers: tuple[int, ...], machine: Machine) -> Choice:
    asked = f"backend onnxruntime was asked for on the device {device}"
    gpus = _gpus(numbers, machine, asked)
    if machine.onnxruntime_cuda_problem:
        raise BackendUnavailableError(
            f"{asked}, but {machine.onnxruntime_cuda_problem};"
            " install onnxruntime-gpu in place of onnxruntime, or use --device cpu"
        )
    return Choice("onnxruntime", gpus, asked)


def _gpus(numbers: tuple[int, ...], machine: Machine, asked: str) -> tuple[int, ...]:
    """The GPUs that are meant. Raises BackendUnavailableError where one is not there."""
    if machine.gpu_problem:
        raise BackendUnavailableError(
            f"{asked}, but {machine.gpu_problem}; use {_without_gpu(asked)} to serve without a GPU"
        )
    count = len(machine.gpus)
    for number in numbers:
        if number >= count:
            known = "only gpu:0" if count == 1 else f"gpu:0 to gpu:{count - 1}"
            raise BackendUnavailableError(f"{asked}, but this machine has {known} and no gpu:{number}")
    return numbers or tuple(range(count))


def _without_gpu(asked: str) -> str:
    """What to say instead of what was asked for."""
    return "--device cpu or --device auto" if "device" in asked else "--backend onnxruntime or --backend auto"
