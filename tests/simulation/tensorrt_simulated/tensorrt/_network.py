"""The network that a parser fills: an ONNX graph seen through INetworkDefinition, ITensor and ILayer."""

from __future__ import annotations

from typing import Any

import onnx

from ._basics import Dims
from ._graph import DATA_TYPES, declared_shape, inputs_of, shape_inputs
from ._real import DataType, Native, NetworkDefinitionCreationFlag, TensorFormat, as_in_this_generation


class ITensor(Native):
    """An input or output of the network."""

    def __init__(self, value: onnx.ValueInfoProto, *, is_input: bool, is_shape: bool) -> None:
        self._value = value
        self._is_input = is_input
        self._is_shape = is_shape
        self._allowed_formats = 0

    @property
    def name(self) -> str:
        return self._value.name

    @property
    def shape(self) -> Dims:
        return Dims(declared_shape(self._value))

    @property
    def dtype(self) -> Any:
        elem_type = self._value.type.tensor_type.elem_type
        # The real parser takes double precision for single.
        return DataType.FLOAT if elem_type == onnx.TensorProto.DOUBLE else DATA_TYPES[elem_type][0]

    @property
    def is_shape_tensor(self) -> bool:
        return self._is_shape

    @property
    def is_network_input(self) -> bool:
        return self._is_input

    @property
    def is_network_output(self) -> bool:
        return not self._is_input

    @property
    def allowed_formats(self) -> int:
        return self._allowed_formats

    @allowed_formats.setter
    def allowed_formats(self, value: int) -> None:
        self._allowed_formats = int(value)


class ILayer(Native):
    """A node of the graph."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node

    @property
    def name(self) -> str:
        return self._node.name or self._node.op_type

    @property
    def num_inputs(self) -> int:
        return len(self._node.input)

    @property
    def num_outputs(self) -> int:
        return len(self._node.output)


class INetworkDefinition(Native):
    """Empty until a parser has filled it."""

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model: onnx.ModelProto | None = None
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    def _fill(self, model: onnx.ModelProto) -> None:
        shapes = shape_inputs(model)
        self._model = model
        self._inputs = [ITensor(value, is_input=True, is_shape=value.name in shapes) for value in inputs_of(model)]
        self._outputs = [ITensor(value, is_input=False, is_shape=False) for value in model.graph.output]

    @property
    def name(self) -> str:
        return self._model.graph.name if self._model else "Unnamed Network 0"

    @property
    def flags(self) -> int:
        return self._flags

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor | None:
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_output(self, index: int) -> ITensor | None:
        return self._outputs[index] if 0 <= index < len(self._outputs) else None

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node) if self._model else 0

    def get_layer(self, index: int) -> ILayer | None:
        return ILayer(self._model.graph.node[index]) if self._model and 0 <= index < self.num_layers else None

    def _is_strongly_typed(self) -> bool:
        """Always in 11; in 10 only where it was asked for."""
        asked = self.get_flag(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return asked or not hasattr(NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")

    def _linear_io(self) -> bool:
        linear = 1 << int(TensorFormat.LINEAR)
        return all(tensor.allowed_formats in (0, linear) for tensor in [*self._inputs, *self._outputs])


for _cls in (ITensor, ILayer, INetworkDefinition):
    as_in_this_generation(_cls)
