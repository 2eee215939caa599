"""What a deserialised engine takes and gives: names, types, shapes, where they lie, and the ranges of its profiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trtserve_engines.errors import PlanError
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec
from trtserve_engines.tensorrt.profile_choice import Profile
from trtserve_engines.tensorrt.profile_shapes import Shape, ShapeRange
from trtserve_engines.tensorrt.tensor_types import NUMPY_TYPES


@dataclass(frozen=True)
class EngineTensor:
    """One input or output. `on_host` says that TensorRT reads an input's values, as a shape, in host memory."""

    spec: TensorSpec
    on_host: bool = False

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.spec.name

    def nbytes(self, shape: Shape) -> int:
        """How long the tensor is with this shape."""
        return math.prod(shape) * self.spec.dtype.itemsize


@dataclass(frozen=True)
class EngineIo:
    """All inputs and outputs of an engine, in its order, and its profiles."""

    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    profiles: tuple[Profile, ...]

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as every backend describes them."""
        return Signature(tuple(each.spec for each in self.inputs), tuple(each.spec for each in self.outputs))

    @property
    def has_host_inputs(self) -> bool:
        """Whether values of inputs decide about shapes."""
        return any(each.on_host for each in self.inputs)


def read_engine_io(trt: Any, engine: Any) -> EngineIo:
    """What `engine`, an ICudaEngine, says of itself. Raises PlanError for what cannot be served."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
    inputs = tuple(_tensor(trt, engine, name) for name in names if is_input[name])
    outputs = tuple(_tensor(trt, engine, name) for name in names if not is_input[name])
    profiles = tuple(_profile(engine, inputs, number) for number in range(engine.num_optimization_profiles))
    return EngineIo(inputs, outputs, profiles)


def _tensor(trt: Any, engine: Any, name: str) -> EngineTensor:
    data_type = engine.get_tensor_dtype(name).name
    dtype = NUMPY_TYPES.get(data_type)
    if dtype is None:
        raise PlanError(
            f"{name!r} has the type {data_type}, which requests cannot carry; known are {', '.join(NUMPY_TYPES)}."
            " Build the engine with inputs and outputs of one of these"
        )
    if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
        raise PlanError(
            f"{name!r} has the format {engine.get_tensor_format_desc(name)}; wanted is LINEAR: build the engine again"
        )
    on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
    return EngineTensor(TensorSpec(name, dtype, tuple(engine.get_tensor_shape(name))), on_host)


def _profile(engine: Any, inputs: tuple[EngineTensor, ...], number: int) -> Profile:
    return {tensor.name: _range(engine, tensor, number) for tensor in inputs}


def _range(engine: Any, tensor: EngineTensor, number: int) -> ShapeRange:
    shape = tensor.spec.shape
    if tensor.on_host:
        # The binding has its argument names swapped, hence by position.
        ranges = engine.get_tensor_profile_values(number, tensor.name)
    elif DYNAMIC in shape:
        ranges = engine.get_tensor_profile_shape(tensor.name, number)
    else:
        ranges = (shape, shape, shape)
    if len(ranges) != 3:
        raise PlanError(f"the engine tells no range of input {tensor.name!r} in profile {number}; build it again")
    return ShapeRange(*(tuple(each) for each in ranges))
