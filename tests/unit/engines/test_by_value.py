"""Which tensors may change while a model runs: those that are only ever computed with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.models.make_models import Dims, gather, model, scale, tensor
from trtserve_engines.by_value import by_value

INT64 = TensorProto.INT64


def node(op: str, *inputs: str, to: str | Sequence[str], **attributes: object) -> onnx.NodeProto:
    outputs = [to] if isinstance(to, str) else to
    return helper.make_node(op, inputs, outputs, **attributes)


def graph(*nodes: onnx.NodeProto, y: int = TensorProto.FLOAT, x: int = TensorProto.FLOAT) -> onnx.GraphProto:
    dims: Dims = ["batch", 4]
    weights = {"w": np.ones((4, 4), np.float32), "k": np.array([2], np.int64)}
    return model(nodes, [tensor("x", dims, x)], [tensor("y", dims, y)], weights).graph


TOP = node("TopK", "a", "k", to=["b", "order"])


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([node("MatMul", "x", "w", to="y")], "xy"),
        ([node("Mul", "x", "w", to="a"), node("MatMul", "a", "w", to="y")], "xy"),
        # What a MatMul gives is its own, whoever sorts it; what an Add gives may be what it was given.
        ([node("MatMul", "x", "w", to="a"), TOP, node("Softmax", "b", to="y")], "xy"),
        ([node("Add", "x", "w", to="a"), TOP, node("Softmax", "b", to="y")], "y"),
        ([node("Cast", "x", to="c"), node("Reshape", "c", "k", to="a"), TOP, node("Softmax", "b", to="y")], "y"),
        # Outputs are written to by whoever gives them, and may be read by others.
        ([node("MatMul", "x", "w", to="a"), node("TopK", "a", "k", to=["y", "order"])], "x"),
        ([node("MatMul", "x", "w", to="a"), TOP, node("Identity", "b", to="y")], "x"),
        ([node("MatMul", "x", "w", to="y"), node("TopK", "y", "k", to=["b", "order"])], "x"),
        # A constant has memory of its own, whatever else is done with it.
        ([node("Mul", "x", "w", to="y"), node("TopK", "w", "k", to=["b", "order"])], "xy"),
        # Nor has what is left out.
        ([node("Clip", "x", "", "w", to="a"), node("Clip", "a", "w", "", to="y")], "xy"),
        ([node("Dropout", "x", to=["a", ""]), node("Clip", "a", "", "w", to="y")], "xy"),
        # As a size or a place.
        ([node("Range", "x", "x", "x", to="y")], ""),
        ([node("Cast", "x", to="a"), node("Expand", "w", "a", to="y")], "y"),
        ([node("NonMaxSuppression", "x", "x", to="y")], ""),
        # Nobody knows what this does.
        ([node("MatMul", "x", "w", to="y", domain="com.example")], ""),
        ([node("MatMul", "x", "w", to="y"), node("Conv", "x", "w", to="b", domain="com.example")], "y"),
    ],
)
def test_what_is_only_computed_with(nodes: Sequence[onnx.NodeProto], wanted: str) -> None:
    assert by_value(graph(*nodes)) == set(wanted)


def test_what_an_inner_graph_reads_counts_too() -> None:
    top = node("TopK", "x", "k", to=["i", "o"])
    inner = helper.make_graph([top], "inner", [], [tensor("i", [1])])
    nodes = [node("MatMul", "x", "w", to="y"), node("If", "c", to="z", then_branch=inner, else_branch=inner)]
    assert by_value(graph(*nodes)) == {"y"}


def test_only_floating_point_counts() -> None:
    assert by_value(graph(node("Mul", "x", "x", to="y"), x=INT64, y=INT64)) == set()
    assert by_value(gather().graph) == set()
    assert by_value(scale(2.0).graph) == {"x", "y"}
