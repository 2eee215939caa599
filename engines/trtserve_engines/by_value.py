"""Which tensors of a graph are only ever computed with: if what they hold changes during a run, only results do.

Kernels check values that they use as places, sizes or an order, and then use them again: TopK sorts, Gather addresses.
Another process that changes such a value in between makes them read or write anywhere. Arithmetic does not care.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto

from trtserve_engines.graph_nodes import all_nodes

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})

# fmt: off
_COMPUTING = frozenset({
    "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "DequantizeLinear",
    "DynamicQuantizeLinear", "Elu", "Erf", "Exp", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid",
    "HardSwish", "InstanceNormalization", "LayerNormalization", "LinearClassifier", "LinearRegressor", "Log",
    "LogSoftmax", "LRN", "MatMul", "MatMulInteger", "MaxPool", "Mish", "Normalizer", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Scaler", "Selu", "Sigmoid", "Softmax",
    "Softplus", "Sqrt", "Tanh", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
})
"""Operators that read the values of their inputs as numbers, and give something of their own."""

_PASSING_ALL = frozenset({"Add", "Concat", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum"})
_PASSING_FIRST = frozenset({
    "Abs", "Cast", "Clip", "Dropout", "Expand", "Flatten", "Identity", "LeakyRelu", "Neg", "Pad", "Relu", "Reshape",
    "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})
"""The same of all their inputs, or of the first, while the others say how; but a runtime may drop them, or let what
they give be what they take.
"""
# fmt: on

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


class _Node:
    """An operator: all its `tensors`; those `passed`, which may share memory; those that are used as `others`."""

    def __init__(self, node: onnx.NodeProto, constants: set[str]) -> None:
        self.tensors = {*node.input, *node.output} - constants
        self.passed: set[str] = set()
        self.others: set[str] = set()
        if node.op_type in _PASSING_FIRST:
            self.passed = {*node.input[:1], *node.output} - constants
            self.others = {*node.input[1:]}
        elif node.op_type in _PASSING_ALL:
            self.passed = self.tensors
        known = _COMPUTING | _PASSING_ALL | _PASSING_FIRST
        self.computes = node.op_type in known and node.domain in _DOMAINS


def by_value(graph: onnx.GraphProto) -> frozenset[str]:
    """The names of those inputs and outputs, of floating point, that no operator uses but to compute with."""
    # Constants have memory of their own, whatever they are computed with.
    constants = {tensor.name for tensor in graph.initializer} | {""}  # which stands for what is left out
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    nodes = [_Node(node, constants) for node in all_nodes(graph)]
    values = [*graph.input, *graph.output]
    floats = {value.name for value in values if value.type.tensor_type.elem_type in _FLOATS}
    return frozenset(name for name in floats if _is_computed_with(name, nodes))


def _is_computed_with(name: str, nodes: Iterable[_Node]) -> bool:
    """Whether that holds for all that may lie in the tensor's memory: what passing operators make of it or it of."""
    same = {name}
    left = list(nodes)
    while touching := [node for node in left if not same.isdisjoint(node.tensors)]:
        for node in touching:
            if not node.computes or not same.isdisjoint(node.others):
                return False
            same |= node.passed
        left = [node for node in left if node not in touching]
    return True
