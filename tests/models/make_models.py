"""Small ONNX models for tests, each made by a function and none of them on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]


def tensor(name: str, dims: Dims, elem_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """A graph input or output; a str or None in `dims` is a dynamic dimension."""
    return helper.make_tensor_value_info(name, elem_type, dims)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of these parts."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def linear(features: int = 16, classes: int = 8, seed: int = 0) -> onnx.ModelProto:
    """y = x W: [batch, features] to [batch, classes]."""
    weights = np.random.default_rng(seed).standard_normal((features, classes)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [tensor("x", ["batch", features])], [tensor("y", ["batch", classes])], {"w": weights})


def scale(factor: float, features: int = 4) -> onnx.ModelProto:
    """y = factor x: tells versions of a model apart."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    weights = {"factor": np.array(factor, np.float32)}
    return model([node], [tensor("x", ["batch", features])], [tensor("y", ["batch", features])], weights)


def identity(elem_type: int = TensorProto.FLOAT, dims: Dims = ("batch", "n")) -> onnx.ModelProto:
    """y = x for any element type and shape."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return model([node], [tensor("x", dims, elem_type)], [tensor("y", dims, elem_type)])


def add(dims: Dims = ("batch", 4)) -> onnx.ModelProto:
    """total = a + b: two inputs."""
    node = helper.make_node("Add", ["a", "b"], ["total"])
    return model([node], [tensor("a", dims), tensor("b", dims)], [tensor("total", dims)])


def mixes_rows() -> onnx.ModelProto:
    """Softmax over the first dimension: looks batchable by its shapes and is not."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    return model([node], [tensor("x", ["batch", 4])], [tensor("y", ["batch", 4])])


def nonzero() -> onnx.ModelProto:
    """The indices of what is not 0: the output's shape depends on the data."""
    node = helper.make_node("NonZero", ["x"], ["indices"])
    return model([node], [tensor("x", ["n"])], [tensor("indices", [1, "count"], TensorProto.INT64)])


def gather() -> onnx.ModelProto:
    """y = table[index]: fails at run time for an index outside 0..3."""
    node = helper.make_node("Gather", ["table", "index"], ["y"], axis=0)
    weights = {"table": np.arange(4, dtype=np.float32)}
    return model([node], [tensor("index", ["batch"], TensorProto.INT64)], [tensor("y", ["batch"])], weights)


def filled() -> onnx.ModelProto:
    """sum of a tensor of ones that has size[0] elements: a request decides how much memory its run needs."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0),
    ]
    return model(nodes, [tensor("size", [1], TensorProto.INT64)], [tensor("sum", [])])


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Writes the model, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def save_with_external_data(proto: onnx.ModelProto, path: Path, location: str = "weights.bin") -> Path:
    """Writes the model with its weights in a file of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        proto, str(path), save_as_external_data=True, location=location, size_threshold=0, convert_attribute=False
    )
    return path


def convnet(size: int = 64, channels: int = 64, depth: int = 10, seed: int = 0) -> onnx.ModelProto:
    """An image classifier without training: [batch, 3, size, size] to [batch, 10]; about 10 ms of one core an image."""
    random = np.random.default_rng(seed)
    nodes, weights, source, width = [], {}, "image", 3
    for layer in range(depth):
        kernel = random.standard_normal((channels, width, 3, 3)) / np.sqrt(9 * width)
        weights[f"k{layer}"] = kernel.astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"k{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        source, width = f"r{layer}", channels
    weights["w"] = random.standard_normal((channels, 10)).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [source], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    image = tensor("image", ["batch", 3, size, size])
    return model(nodes, [image], [tensor("logits", ["batch", 10])], weights)


def in_bfloat16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model of FP32 with BF16 between its first input and its first output, which stay what they are."""
    nodes, graph = proto.graph.node, proto.graph
    source, target = graph.input[0].name, graph.output[0].name
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name in (source, target):
                    names[index] = f"{name}_half"
    nodes.insert(0, helper.make_node("Cast", [source], [f"{source}_half"], to=TensorProto.BFLOAT16))
    nodes.append(helper.make_node("Cast", [f"{target}_half"], [target], to=TensorProto.FLOAT))
    for weight in graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(array.astype(ml_dtypes.bfloat16), weight.name))
    proto.opset_import[0].version, proto.ir_version = 22, 10
    return proto


def transformer(
    width: int = 32, heads: int = 4, layers: int = 2, detour: float = 0.0, seed: int = 0
) -> onnx.ModelProto:
    """A text classifier without training: tokens [batch, length], 0 to 49, to [batch, 5].

    With `detour` its numbers are multiplied by so much and divided by it again before the last layer.
    """
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights = {
        "split": np.array([0, 0, heads, width // heads]),
        "join": np.array([0, 0, width]),
        "scale": np.array(np.sqrt(width / heads), np.float32),
        "one": np.ones(width, np.float32),
        "zero": np.zeros(width, np.float32),
        "detour": np.array(detour, np.float32),
    }

    def add(operator: str, *inputs: str, **attributes: object) -> str:
        output = f"t{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], f"{operator}_{output}", **attributes))
        return output

    def weight(rows: int, columns: int) -> str:
        name = f"w{len(weights)}"
        weights[name] = (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        return name

    def split(source: str, perm: Sequence[int]) -> str:
        return add("Transpose", add("Reshape", add("MatMul", source, weight(width, width)), "split"), perm=perm)

    x = add("Gather", weight(50, width), "tokens")
    for _ in range(layers):
        normed = add("LayerNormalization", x, "one", "zero")
        query, key, value = split(normed, [0, 2, 1, 3]), split(normed, [0, 2, 3, 1]), split(normed, [0, 2, 1, 3])
        shares = add("Softmax", add("Div", add("MatMul", query, key), "scale"))
        heard = add("Reshape", add("Transpose", add("MatMul", shares, value), perm=[0, 2, 1, 3]), "join")
        x = add("Add", x, add("MatMul", heard, weight(width, width)))
        thought = add("Relu", add("MatMul", x, weight(width, 4 * width)))
        x = add("Add", x, add("MatMul", thought, weight(4 * width, width)))
    if detour:
        x = add("Div", add("Mul", x, "detour"), "detour")
    mean = add("ReduceMean", x, axes=[1], keepdims=0)
    nodes.append(helper.make_node("MatMul", [mean, weight(width, 5)], ["logits"], "logits"))
    tokens = tensor("tokens", ["batch", "length"], TensorProto.INT64)
    return model(nodes, [tokens], [tensor("logits", ["batch", 5])], weights)
