"""Small ONNX models for tests, each made by a function and none of them on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
