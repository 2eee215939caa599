"""fp32: half precision in a graph becomes single precision, everywhere, with casts only at its ends."""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from trtserve_engines.graph_nodes import all_nodes

VERSION = 1
"""Part of an engine's key: raise it when the same graph would come out otherwise."""

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "stash_type"})


def widened(model: onnx.ModelProto, *, keep_io_types: bool) -> onnx.ModelProto:
    """The model, changed in place. Values stay what they are, because FP32 holds all of FP16 and of BF16.

    With `keep_io_types` inputs and outputs keep their types, and a Cast stands between them and the graph.
    """
    ends = _half_ends(model.graph) if keep_io_types else []
    _widen_graph(model.graph)
    for function in model.functions:
        _widen_nodes(function.node)
        _widen_values(function.value_info)
    for name, elem_type, is_input in ends:
        _put_cast(model.graph, name, elem_type, is_input=is_input)
    return model


def _half_ends(graph: onnx.GraphProto) -> list[tuple[str, int, bool]]:
    weights = {tensor.name for tensor in graph.initializer}
    return [
        (value.name, value.type.tensor_type.elem_type, is_input)
        for values, is_input in ((graph.input, True), (graph.output, False))
        for value in values
        if value.type.tensor_type.elem_type in _HALVES and value.name not in weights
    ]


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for sparse in graph.sparse_initializer:
        _widen_tensor(sparse.values)
    for values in (graph.input, graph.output, graph.value_info):
        _widen_values(values)
    _widen_nodes(graph.node)


def _widen_values(values: Iterable[onnx.ValueInfoProto]) -> None:
    for value in values:
        if value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            _widen_attribute(attribute)


def _widen_attribute(attribute: AttributeProto) -> None:
    if attribute.name in _TYPE_ATTRIBUTES and attribute.type == AttributeProto.INT and attribute.i in _HALVES:
        attribute.i = TensorProto.FLOAT
    for tensor in (attribute.t, *attribute.tensors):
        _widen_tensor(tensor)
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        _widen_tensor(sparse.values)
    for graph in (attribute.g, *attribute.graphs):
        _widen_graph(graph)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type not in _HALVES:
        return
    array = numpy_helper.to_array(tensor)
    if tensor.data_type == TensorProto.BFLOAT16 and array.dtype.kind == "u":  # what onnx gave before 1.19
        array = array.view(ml_dtypes.bfloat16)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, np.float32), tensor.name))


def _put_cast(graph: onnx.GraphProto, name: str, elem_type: int, *, is_input: bool) -> None:
    """A Cast between the end `name`, which gets `elem_type` back, and the graph, which goes on in FP32."""
    inner = f"{name}_fp32"
    for value in graph.input if is_input else graph.output:
        if value.name == name:
            value.type.tensor_type.elem_type = elem_type
    for node in all_nodes(graph):
        for names in (node.input, node.output):
            for index, used in enumerate(names):
                if used == name:
                    names[index] = inner
    if is_input:
        graph.node.insert(0, helper.make_node("Cast", [name], [inner], f"{inner}_cast", to=TensorProto.FLOAT))
    else:
        graph.node.append(helper.make_node("Cast", [inner], [name], f"{inner}_cast", to=elem_type))
