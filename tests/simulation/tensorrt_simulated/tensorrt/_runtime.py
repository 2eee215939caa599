"""Runtime, engine and inspector: a plan becomes an ONNX Runtime session that contexts share."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from . import _graph
from ._basics import Dims, log, log_error, register_logger
from ._cuda import CudaFailure, device
from ._plan import read
from ._plugins import IPluginRegistry, get_plugin_registry
from ._real import (
    EngineStat,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    LayerInformationFormat,
    Native,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    Severity,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
    as_in_this_generation,
)

Shape = tuple[int, ...]

_ALIGNMENT = 256


class DeviceMemory:
    """Device memory that goes when its owner does."""

    def __init__(self, size: int) -> None:
        self.address = 0
        self.address = device().allocate(size)

    def __del__(self) -> None:
        try:
            device().free(self.address)
        except CudaFailure as failure:
            log_error("IRuntime", str(failure), "Error Code 1: Cuda Runtime")


class Runtime(Native):
    """Makes engines of plans on the GPU that is current in the calling thread."""

    def __init__(self, logger: Any) -> None:
        self._logger = register_logger(logger)
        self._engine_host_code_allowed = False
        self._max_threads = 1
        if device() is None:
            # The real one returns an object around nothing, which crashes at first use.
            log(Severity.ERROR, "CUDA initialization failure with error: 35")

    @property
    def engine_host_code_allowed(self) -> bool:
        return self._engine_host_code_allowed

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, value: bool) -> None:
        self._engine_host_code_allowed = value

    @property
    def max_threads(self) -> int:
        return self._max_threads

    @max_threads.setter
    def max_threads(self, value: int) -> None:
        self._max_threads = value

    @property
    def logger(self) -> Any:
        return self._logger

    def get_plugin_registry(self) -> IPluginRegistry:
        return get_plugin_registry()

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        if device() is None:
            os.kill(os.getpid(), signal.SIGSEGV)
        try:
            gpu = device().identity()
            content = read(bytes(memoryview(serialized_engine)), gpu, host_code_allowed=self._engine_host_code_allowed)
            if content is None:
                return None
            metadata, model = content
            complete = get_plugin_registry()._with_plugins(model)
            if complete is None:
                return None
            weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
            return ICudaEngine(self, metadata, complete, weights, bytes(memoryview(serialized_engine)))
        except CudaFailure as failure:
            log_error("IRuntime::deserializeCudaEngine", str(failure), "Error Code 2: OutOfMemory")
            return None


class IRuntimeConfig(Native):
    """How contexts get their memory."""

    def __init__(self) -> None:
        self._strategy = ExecutionContextAllocationStrategy.STATIC

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy

    def set_execution_context_allocation_strategy(
        self, strategy: Any = ExecutionContextAllocationStrategy.STATIC
    ) -> None:
        self._strategy = strategy


class ICudaEngine(Native):
    """Reads may come from any thread; each context belongs to one."""

    def __init__(
        self, runtime: Runtime, metadata: Mapping[str, Any], model: onnx.ModelProto, weights: int, plan: bytes
    ) -> None:
        self._runtime, self._metadata, self._model, self._weights, self._plan = (
            runtime, metadata, model, weights, plan,
        )  # fmt: skip
        self._ordinal = device().ordinal()
        self._memory = DeviceMemory(weights)
        self._session = _graph.session_of(model)
        self._inputs = {value.name: value for value in _graph.inputs_of(model)}
        self._outputs = {value.name: value for value in model.graph.output}
        self._tensors = {**self._inputs, **self._outputs}
        self._shape_inputs = _graph.shape_inputs(model)
        self._shapes: dict[Any, dict[str, Shape]] = {}
        self._lock = threading.Lock()
        self._has_data_dependent_shapes = _graph.has_data_dependent_shapes(model)

    num_io_tensors = property(lambda self: len(self._tensors))
    num_layers = property(lambda self: len(self._model.graph.node))
    num_optimization_profiles = property(lambda self: max(1, len(self._metadata["profiles"])))
    num_aux_streams = property(lambda self: max(0, self._metadata["max_aux_streams"]))
    name = property(lambda self: self._model.graph.name)
    refittable = property(lambda self: any(flag.startswith("REFIT") for flag in self._metadata["flags"]))
    streamable_weights_size = property(lambda self: 0)
    hardware_compatibility_level = property(
        lambda self: getattr(HardwareCompatibilityLevel, self._metadata["hardware_compatibility"])
    )
    profiling_verbosity = property(lambda self: getattr(ProfilingVerbosity, self._metadata["profiling_verbosity"]))

    @property
    def device_memory_size_v2(self) -> int:
        return max(self.get_device_memory_size_for_profile_v2(index) for index in range(self.num_optimization_profiles))

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        """As much as the inputs and outputs of the profile's largest shapes take."""
        sizes = [self._nbytes(name, shape) for name, shape in self._largest(profile_index).items()]
        return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)

    def get_engine_stat(self, stat: Any = EngineStat.TOTAL_WEIGHTS_SIZE) -> int:
        return self._weights if stat == EngineStat.TOTAL_WEIGHTS_SIZE else 0

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        if name not in self._tensors:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return _graph.DATA_TYPES[self._tensors[name].type.tensor_type.elem_type][0]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(_graph.declared_shape(self._tensors[name]))

    def get_tensor_location(self, name: str) -> Any:
        return TensorLocation.HOST if name in self._shape_inputs else TensorLocation.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self._shape_inputs

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        return TensorFormat.LINEAR

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        return f"Row major linear {self.get_tensor_dtype(name).name} format (kLINEAR)"

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        return -1

    def get_tensor_components_per_element(self, name: str, profile_index: int = 0) -> int:
        return -1

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        return -1

    def get_aliased_input_tensor(self, name: str) -> str:
        return ""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        """Min, opt, max. As in the real one, for inputs only: an output yields dims that cannot be read."""
        if name not in self._inputs:
            return [_Unreadable() for _ in range(3)]
        return [Dims(shape) for shape in self._profile_shapes(name, profile_index)]

    def get_tensor_profile_values(self, name: int, profile_index: str) -> list[list[int]]:
        """The real one's argument names are swapped too: call it with (profile index, tensor name)."""
        return self._profile(name)["values"].get(profile_index, [])

    def create_execution_context(self, strategy: Any = ExecutionContextAllocationStrategy.STATIC) -> Any:
        from ._context import IExecutionContext

        if isinstance(strategy, IRuntimeConfig):
            strategy = strategy.get_execution_context_allocation_strategy()
        try:
            if device().ordinal() != self._ordinal:
                raise CudaFailure("the engine belongs to another device than the current one")
            return IExecutionContext(self, strategy)
        except CudaFailure as failure:
            size = self.device_memory_size_v2
            log_error(
                "ICudaEngine::createExecutionContext",
                f"Requested amount of GPU memory ({size} bytes) could not be allocated. There may not be enough free"
                f" memory for allocation to succeed. {failure}",
                "Error Code 2: OutOfMemory",
            )
            return None

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def serialize(self) -> Any:
        from ._basics import host_memory

        return host_memory(self._plan)

    def _profile(self, index: int) -> dict[str, Any]:
        profiles = self._metadata["profiles"]
        return profiles[index] if profiles else {"shapes": {}, "values": {}}

    def _profile_shapes(self, name: str, index: int) -> list[Shape]:
        declared = _graph.declared_shape(self._inputs[name])
        given = self._profile(index)["shapes"].get(name)
        return [tuple(shape) for shape in given] if given and -1 in declared else [declared] * 3

    def _largest(self, index: int) -> dict[str, Shape]:
        """The largest inputs of a profile and what they give, by running the graph on ones where data decides."""
        shapes = {name: self._profile_shapes(name, index)[2] for name in self._inputs}
        values = self._largest_values(index)
        outputs = self._output_shapes(shapes, values)
        if any(-1 in shape for shape in outputs.values()):
            outputs = self._data_dependent_bound(shapes, values)
        return {**shapes, **outputs}

    def _largest_values(self, index: int) -> dict[str, np.ndarray]:
        return {
            name: np.array(values[2], self._numpy_type(name)).reshape(_graph.declared_shape(self._inputs[name]) or ())
            for name, values in self._profile(index)["values"].items()
        }

    def _data_dependent_bound(self, shapes: Mapping[str, Shape], values: Mapping[str, np.ndarray]) -> dict[str, Shape]:
        feeds = {
            name: values[name] if name in values else np.ones(shapes[name], self._numpy_type(name))
            for name in self._inputs
        }
        names = list(self._outputs)
        arrays = _graph.run(self._session, self._model, feeds, names)
        return {name: array.shape for name, array in zip(names, arrays, strict=True)}

    def _output_shapes(self, shapes: Mapping[str, Shape], values: Mapping[str, np.ndarray]) -> dict[str, Shape]:
        key = (tuple(sorted(shapes.items())), tuple((name, values[name].tobytes()) for name in sorted(values)))
        with self._lock:
            if key not in self._shapes:
                self._shapes[key] = _graph.output_shapes(self._model, shapes, values)
            return self._shapes[key]

    def _numpy_type(self, name: str) -> np.dtype:
        return _graph.DATA_TYPES[self._tensors[name].type.tensor_type.elem_type][1]

    def _nbytes(self, name: str, shape: Shape) -> int:
        return int(np.prod(shape, dtype=np.int64)) * self._numpy_type(name).itemsize


class _Unreadable:
    """Dims with a number of dimensions of -1."""

    def __iter__(self) -> Any:
        raise ValueError("__len__() should return >= 0")


class EngineInspector(Native):
    """Tells of the engine's layers, in detail where it was built to."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._execution_context = None

    @property
    def execution_context(self) -> Any:
        return self._execution_context

    @execution_context.setter
    def execution_context(self, value: Any) -> None:
        self._execution_context = value

    def get_layer_information(self, layer_index: int, format: Any) -> str:
        layer = self._layer(self._engine._model.graph.node[layer_index])
        return json.dumps(layer) if format == LayerInformationFormat.JSON else str(layer)

    def get_engine_information(self, format: Any) -> str:
        layers = [self._layer(node) for node in self._engine._model.graph.node]
        if format == LayerInformationFormat.ONELINE:
            return "Layers:\n" + "\n".join(map(str, layers))
        # Renamed in 11, where EXPLICIT_BATCH is gone.
        tensors = "Bindings" if hasattr(NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") else "I/O Tensors"
        return json.dumps({"Layers": layers, tensors: list(self._engine._tensors)})

    def _layer(self, node: onnx.NodeProto) -> Any:
        name = node.name or node.op_type
        if self._engine.profiling_verbosity != ProfilingVerbosity.DETAILED:
            return "" if self._engine.profiling_verbosity == ProfilingVerbosity.NONE else name
        return {"Name": name, "LayerType": node.op_type, "Inputs": list(node.input), "Outputs": list(node.output)}


for _cls in (Runtime, IRuntimeConfig, ICudaEngine, EngineInspector):
    as_in_this_generation(_cls)
