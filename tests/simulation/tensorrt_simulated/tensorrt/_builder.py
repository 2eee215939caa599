"""Builder: checks what the real one checks, reports progress, and writes a plan that holds the ONNX graph.

Two switches for tests of builds that do not end by themselves, both read during the build:
SIMULATED_TENSORRT_BUILD_GATE names a FIFO that the build reads to its end half-way through;
SIMULATED_TENSORRT_BUILD_CRASH names the signal that the process gets there.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping
from typing import Any

from ._basics import IHostMemory, call_back, host_memory, log, log_error, register_logger
from ._config import IBuilderConfig, IOptimizationProfile
from ._cuda import CudaFailure, device
from ._graph import declared_shape
from ._network import INetworkDefinition
from ._plan import write
from ._plugins import IPluginRegistry, get_plugin_registry
from ._real import BuilderFlag, Native, Severity, as_in_this_generation

_WHERE = "IBuilder::buildSerializedNetwork"
_ROOT_PHASE = "Building engine"
_PHASES = (("Graph optimization", 3), ("Tactic selection", 0), ("Serialization", 1))


class Builder(Native):
    """Builds plans for the GPU that is current in the calling thread."""

    def __init__(self, logger: Any) -> None:
        self._logger = register_logger(logger)
        if device() is None:
            log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._max_threads = 1

    @property
    def max_threads(self) -> int:
        return self._max_threads

    @max_threads.setter
    def max_threads(self, value: int) -> None:
        self._max_threads = value

    @property
    def logger(self) -> Any:
        return self._logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def get_plugin_registry(self) -> IPluginRegistry:
        return get_plugin_registry()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        try:
            gpu = device().identity()
        except CudaFailure as failure:
            log_error(_WHERE, str(failure), "Error Code 1: Cuda Runtime")
            return None
        if not _is_buildable(network, config):
            return None
        if not _Progress(config, network.num_layers).run(lambda index: _time_layer(network, config, index)):
            log_error(_WHERE, "Build was cancelled by the progress monitor", "Error Code 10: Internal Error")
            return None
        plan = write(_metadata(network, config, gpu), network._model)
        log(Severity.INFO, f"Engine generation completed, {len(plan)} bytes")
        return host_memory(plan)


class _Progress:
    """Walks through the phases of a build, nested and reported as the real ones are."""

    def __init__(self, config: IBuilderConfig, layers: int) -> None:
        self._monitor = config.progress_monitor
        self._layers = layers

    def run(self, time_layer: Any) -> bool:
        self._tell("phase_start", _ROOT_PHASE, None, len(_PHASES))
        done = all(
            self._phase(name, steps or self._layers, time_layer if steps == 0 else None)
            and self._tell("step_complete", _ROOT_PHASE, index)
            for index, (name, steps) in enumerate(_PHASES)
        )
        self._tell("phase_finish", _ROOT_PHASE)
        return done

    def _phase(self, name: str, steps: int, action: Any) -> bool:
        self._tell("phase_start", name, _ROOT_PHASE, steps)
        for step in range(steps):
            if action is not None:
                _interruption() if step == steps // 2 else None
                action(step)
            if not self._tell("step_complete", name, step):
                return False
        self._tell("phase_finish", name)
        return True

    def _tell(self, method: str, *arguments: Any) -> bool:
        if self._monitor is None:
            return True
        # An exception in step_complete cancels the build, as in the real one.
        answer = call_back(False, getattr(self._monitor, method), *arguments)
        return bool(answer) if method == "step_complete" else True


def _interruption() -> None:
    gate = os.environ.get("SIMULATED_TENSORRT_BUILD_GATE")
    if gate:
        with open(gate, "rb") as fifo:
            fifo.read()
    crash = os.environ.get("SIMULATED_TENSORRT_BUILD_CRASH")
    if crash:
        os.kill(os.getpid(), signal.Signals[crash])


def _time_layer(network: INetworkDefinition, config: IBuilderConfig, index: int) -> None:
    """Looks the layer up in the timing cache or times it, which the log shows."""
    node = network._model.graph.node[index]
    cache = config.get_timing_cache()
    if cache is None or config.get_flag(BuilderFlag.DISABLE_TIMING_CACHE) or config.builder_optimization_level == 0:
        return
    key = hashlib.sha256(f"{node.op_type} {node.input} {config.flags}".encode()).hexdigest()[:32]
    hit = key in cache._entries
    cache._entries.setdefault(key, 0.01)
    log(Severity.VERBOSE, f"Layer {node.op_type}: timing cache {'hit' if hit else 'miss'}")


def _is_buildable(network: INetworkDefinition, config: IBuilderConfig) -> bool:
    if network._model is None or network.num_outputs == 0:
        log_error(_WHERE, "Network must have at least one output", "Error Code 4: API Usage Error")
        return False
    if not network._is_strongly_typed():
        log(Severity.WARNING, "Weakly typed networks have been deprecated. Use strongly typed networks instead.")
    if not network._linear_io():
        log_error(_WHERE, "the simulation builds linear inputs and outputs only")
        return False
    dynamic = [tensor for tensor in network._inputs if tensor.is_shape_tensor or -1 in tuple(tensor.shape)]
    if dynamic and not config.num_optimization_profiles:
        log_error(
            _WHERE,
            "Network has dynamic or shape inputs, but no optimization profile has been defined.",
            "Error Code 4: API Usage Error",
        )
        return False
    return all(_is_in(profile, tensor) for profile in config._profiles for tensor in dynamic)


def _is_in(profile: IOptimizationProfile, tensor: Any) -> bool:
    if tensor.is_shape_tensor:
        given = bool(profile.get_shape_input(tensor.name))
        problem = f"Optimization profile is missing values for shape input {tensor.name}."
    else:
        shapes = [tuple(shape) for shape in profile.get_shape(tensor.name)]
        fixed = declared_shape(tensor._value)
        given = bool(shapes) and all(_agrees(shape, fixed) for shape in shapes)
        problem = f"{tensor.name}: optimization profile is missing or does not agree with the network's dimensions."
    if not given:
        log_error(_WHERE, problem, "Error Code 4: API Usage Error")
    return given


def _agrees(shape: tuple[int, ...], fixed: tuple[int, ...]) -> bool:
    return len(shape) == len(fixed) and all(
        size in (wanted, -1) or wanted == -1 for size, wanted in zip(shape, fixed, strict=True)
    )


def _metadata(network: INetworkDefinition, config: IBuilderConfig, gpu: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "gpu": dict(gpu),
        "flags": [name for name, flag in BuilderFlag.__members__.items() if config.get_flag(flag)],
        "hardware_compatibility": config.hardware_compatibility_level.name,
        "profiling_verbosity": config.profiling_verbosity.name,
        "max_aux_streams": config.max_aux_streams,
        "optimization_level": config.builder_optimization_level,
        "avg_timing_iterations": config.avg_timing_iterations,
        "max_num_tactics": config.max_num_tactics,
        "tiling": config.tiling_optimization_level.name,
        "tactic_sources": config.get_tactic_sources(),
        "workspace": {pool.name: size for pool, size in config._pools.items()},
        "strongly_typed": network._is_strongly_typed(),
        "profiles": [{"shapes": profile._shapes, "values": profile._shape_values} for profile in config._profiles],
    }


as_in_this_generation(Builder)
