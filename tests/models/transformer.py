"""A small transformer encoder as an ONNX model, without training: the arithmetic and the shapes of a real one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.models.make_models import model, tensor


class _Graph:
    """Nodes and weights as they are added; each call returns the name of its result."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self._random = np.random.default_rng(seed)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def dense(self, source: str, width: int, units: int) -> str:
        kernel = self._random.standard_normal((width, units)) / np.sqrt(width)
        product = self.add("MatMul", source, self.constant(kernel.astype(np.float32)))
        return self.add("Add", product, self.constant(np.zeros(units, np.float32)))

    def normalised(self, source: str, width: int) -> str:
        scale, bias = self.constant(np.ones(width, np.float32)), self.constant(np.zeros(width, np.float32))
        return self.add("LayerNormalization", source, scale, bias, axis=-1)


def transformer(
    tokens: int = 64, width: int = 256, heads: int = 4, layers: int = 4, classes: int = 8, seed: int = 0
) -> onnx.ModelProto:
    """Encoded tokens [batch, tokens, width] to logits [batch, classes]."""
    graph = _Graph(seed)
    source = "tokens"
    for _ in range(layers):
        source = graph.add("Add", source, _attention(graph, graph.normalised(source, width), tokens, width, heads))
        source = graph.add("Add", source, _feed_forward(graph, graph.normalised(source, width), width))
    pooled = graph.add("ReduceMean", graph.normalised(source, width), axes=[1], keepdims=0)
    logits = graph.dense(pooled, width, classes)
    graph.add("Identity", logits, output="logits")
    encoded = tensor("tokens", ["batch", tokens, width])
    return model(graph.nodes, [encoded], [tensor("logits", ["batch", classes])], graph.weights)


def _attention(graph: _Graph, source: str, tokens: int, width: int, heads: int) -> str:
    split = graph.constant(np.array([-1, tokens, heads, width // heads], np.int64))

    def by_head(order: list[int]) -> str:
        return graph.add("Transpose", graph.add("Reshape", graph.dense(source, width, width), split), perm=order)

    scores = graph.add("MatMul", by_head([0, 2, 1, 3]), by_head([0, 2, 3, 1]))
    scaled = graph.add("Mul", scores, graph.constant(np.float32(1 / np.sqrt(width // heads))))
    mixed = graph.add("MatMul", graph.add("Softmax", scaled, axis=-1), by_head([0, 2, 1, 3]))
    joined = graph.constant(np.array([-1, tokens, width], np.int64))
    return graph.dense(graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), joined), width, width)


def _feed_forward(graph: _Graph, source: str, width: int) -> str:
    return graph.dense(graph.add("Relu", graph.dense(source, width, 4 * width)), 4 * width, width)
