"""Which tensors of a graph are only ever computed with: if what they hold changes during a run, only results do.

Kernels check values that they use as places, sizes or an order, and then use them again: TopK sorts, Gather addresses.
Another process that changes such a value in between makes them read or write anywhere. Arithmetic does not care.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import TensorProto

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


def by_value(graph: onnx.GraphProto) -> frozenset[str]:
    """The names of those inputs and outputs, of floating point, that no operator uses but to compute with."""
    nodes = list(_nodes(graph))
    values = [*graph.input, *graph.output]
    floats = {value.name for value in values if value.type.tensor_type.elem_type in _FLOATS}
    return frozenset(name for name in floats if _is_computed_with(name, nodes))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _is_computed_with(name: str, nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether that holds for all that may lie in the tensor's memory: what passing operators make of it or it of."""
    same = {name}
    seen: set[int] = set()
    grown = True
    while grown:
        grown = False
        for index, node in enumerate(nodes):
            if index in seen or same.isdisjoint([*node.input, *node.output]):
                continue
            if node.domain not in _DOMAINS:
                return False
            if node.op_type in _PASSING_ALL:
                same.update(node.input, node.output)
                grown = True
            elif node.op_type in _PASSING_FIRST:
                if not same.isdisjoint(node.input[1:]):
                    return False
                same.update(node.input[:1], node.output)
                grown = True
            elif node.op_type not in _COMPUTING:
                return False
            seen.add(index)
    return True
