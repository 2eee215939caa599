"""BF16 on a CPU whose ONNX Runtime has no kernels for it: FP32 arithmetic, rounded where the graph rounds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from trtserve_engines.tensorrt.bfloat16_on_cpu import runnable_on_cpu

BF16 = ml_dtypes.bfloat16
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((3, 8)).astype(np.float32)
W = RANDOM.standard_normal((8, 4)).astype(BF16)


def rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(BF16).astype(np.float32)


def half_model(nodes: list[onnx.NodeProto], elem_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """From `x` to `y`, both of `elem_type`, with BF16 weights `w` between."""
    ends = [models.tensor("x", ["batch", 8], elem_type)], [models.tensor("y", ["batch", 4], elem_type)]
    proto = models.model(nodes, *ends, opset=21)
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, W.shape, W.tobytes(), raw=True))
    return proto


def cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_arithmetic_is_rounded_after_each_operator():
    proto = half_model(
        [
            cast("x", "h", TensorProto.BFLOAT16),
            helper.make_node("MatMul", ["h", "w"], ["product"]),
            helper.make_node("Mul", ["product", "product"], ["square"]),
            cast("square", "y", TensorProto.FLOAT),
        ]
    )
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        run(proto, X)
    product = rounded(rounded(X) @ W.astype(np.float32))
    np.testing.assert_allclose(run(runnable_on_cpu(proto), X), rounded(product * product), rtol=2**-7)
    exact = (X @ W.astype(np.float32)) ** 2
    assert np.abs(run(runnable_on_cpu(proto), X) - exact).max() > 1e-3


def test_a_graph_whose_ends_are_bf16_keeps_them():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    proto = runnable_on_cpu(half_model(nodes, TensorProto.BFLOAT16))
    types = [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)]
    assert types == [TensorProto.BFLOAT16, TensorProto.BFLOAT16]
    onnx.checker.check_model(proto, full_check=True)
    ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def test_an_output_that_is_used_again_inside_is_one_tensor():
    proto = half_model([helper.make_node("MatMul", ["x", "w"], ["y"])], TensorProto.BFLOAT16)
    proto.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
    proto.graph.output.append(models.tensor("z", ["batch", 4], TensorProto.BFLOAT16))
    onnx.checker.check_model(runnable_on_cpu(proto), full_check=True)


def test_other_types_are_left_as_they_are():
    proto = models.convnet(16, 8, 2)
    assert runnable_on_cpu(proto) == models.convnet(16, 8, 2)
