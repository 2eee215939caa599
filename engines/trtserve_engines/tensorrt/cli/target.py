"""What a command line says of the GPU and the build, as toolchains: one for each kind of GPU that is meant."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from trtserve_engines.accuracy import Tolerance
from trtserve_engines.backend_choice import parse_device
from trtserve_engines.command_line import CommandLine
from trtserve_engines.config import ConfigError
from trtserve_engines.cuda.open_driver import CUDA_DRIVERS
from trtserve_engines.device import GpuIdentity
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_engines.machine import Machine
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.options import add_arguments, build, from_arguments
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig
from trtserve_engines.tensorrt.toolchain import TensorRtToolchain

SOURCE = "command line"


def add_gpu_arguments(parser: CommandLine) -> None:
    """Which GPU, and how it is called."""
    parser.add_argument(
        "--device", default="gpu:0", metavar="DEVICE", help="gpu:0, gpu:0,1, or gpu for every GPU (default gpu:0)"
    )
    drivers = "|".join(CUDA_DRIVERS)
    parser.add_argument("--cuda-driver", default="auto", metavar=drivers, help="package through which CUDA is called")


def add_build_arguments(parser: CommandLine) -> None:
    """The model, and everything that decides how its engine is built and how exact it must be."""
    parser.add_argument("model", metavar="MODEL.onnx", help="the model to build")
    add_arguments(parser, BuildConfig)
    add_arguments(parser, Tolerance)


def config_of(arguments: Namespace) -> TensorRtConfig:
    """How the engine is built. Raises ConfigError."""
    given = {**from_arguments(BuildConfig, arguments), **from_arguments(Tolerance, arguments)}
    return build(TensorRtConfig, given, SOURCE)


def toolchains(arguments: Namespace, cache: EngineCache) -> list[TensorRtToolchain]:
    """A toolchain for each kind of GPU among those that are meant. Raises EngineError."""
    model, config = read_onnx_model(Path(arguments.model)), config_of(arguments)
    first_of_kind: dict[GpuIdentity, int] = {}
    machine = machine_of(arguments)
    for number in gpu_numbers(arguments.device, machine):
        first_of_kind.setdefault(machine.gpus[number], number)
    return [
        TensorRtToolchain(
            model, config, number, cuda_driver=arguments.cuda_driver, instances=1, folder=cache.timings_folder
        )
        for number in first_of_kind.values()
    ]


def machine_of(arguments: Namespace) -> Machine:
    """What this machine has; BackendUnavailableError with one sentence where it lacks what TensorRT needs."""
    if arguments.cuda_driver not in CUDA_DRIVERS:
        raise ConfigError(f"--cuda-driver = {arguments.cuda_driver!r}; wanted is one of {', '.join(CUDA_DRIVERS)}")
    _check_device(arguments.device)
    machine = look_at_machine(arguments.cuda_driver)
    if problem := machine.gpu_problem or machine.tensorrt_problem:
        raise BackendUnavailableError(f"this command needs a GPU and TensorRT, but {problem}")
    return machine


def gpu_numbers(device: str, machine: Machine) -> tuple[int, ...]:
    """The GPUs that `device` means. Raises ConfigError, or BackendUnavailableError where one is not there."""
    numbers = _check_device(device)
    count = len(machine.gpus)
    missing = [number for number in numbers if number >= count]
    if missing:
        raise BackendUnavailableError(f"there is no gpu:{missing[0]}: this machine has {count} GPU{'s' * (count > 1)}")
    return numbers or tuple(range(count))


def _check_device(device: str) -> tuple[int, ...]:
    """The numbers of the GPUs that `device` names, which may be none. Raises ConfigError."""
    kind, numbers = parse_device(device)
    if kind != "gpu":
        raise ConfigError(f"--device = {device!r}; TensorRT builds for GPUs: wanted is gpu, gpu:0 or gpu:0,1")
    return numbers
