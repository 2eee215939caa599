"""A BF16 graph for a CPU: each operator computes in FP32, its results are rounded to BF16.

ONNX Runtime has no BF16 kernels for CPUs; this is what it does itself for FP16. Bodies of If and Loop stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper, shape_inference

_LEFT_ALONE = frozenset({"Cast", "Constant"})  # these it has


def has_bfloat16(model: onnx.ModelProto) -> bool:
    """Whether something enters, leaves or becomes BF16 in the graph."""
    graph = model.graph
    ends = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    weights = [tensor.data_type for tensor in graph.initializer]
    casts = [attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "to"]
    return TensorProto.BFLOAT16 in (*ends, *weights, *casts)


def runnable_on_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, changed in place, with a Cast at every place where BF16 enters or leaves an operator."""
    if has_bfloat16(model):
        halves, widened = _halves(model), set[str]()
        nodes = [each for node in model.graph.node for each in _with_casts(node, halves, widened)]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return model


def _halves(model: onnx.ModelProto) -> set[str]:
    """The names of all tensors in BF16."""
    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    names = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.BFLOAT16}
    return names | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.BFLOAT16}


def _with_casts(node: onnx.NodeProto, halves: set[str], widened: set[str]) -> Iterator[onnx.NodeProto]:
    if node.op_type in _LEFT_ALONE:
        yield node
        return
    results = []
    for index, name in enumerate(node.input):
        if name in halves:
            node.input[index] = f"{name}_fp32"
            if name not in widened:
                widened.add(name)
                yield helper.make_node("Cast", [name], [f"{name}_fp32"], to=TensorProto.FLOAT)
    for index, name in enumerate(node.output):
        if name in halves:
            node.output[index] = f"{name}_unrounded"
            results.append(helper.make_node("Cast", [f"{name}_unrounded"], [name], to=TensorProto.BFLOAT16))
    yield node
    yield from results
