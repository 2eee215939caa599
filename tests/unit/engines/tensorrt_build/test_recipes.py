"""Precision recipes on small models, each compared with ONNX Runtime on the model as it was."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.models import make_models as models
from trtserve_engines.errors import RecipeError, SignatureError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.recipes import apply_recipe, recipe_tool

FLOAT, HALF, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
RANDOM = np.random.default_rng(0)


@pytest.fixture
def recipe(tmp_path):
    def recipe(proto, **options):
        path = models.save(proto, tmp_path / "original" / "model.onnx")
        (tmp_path / "scratch").mkdir(exist_ok=True)
        result = apply_recipe(read_onnx_model(path), BuildConfig(**options), tmp_path / "scratch")
        return result, onnx.load(result.path)

    return recipe


def run(proto, **feeds):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def classifier():
    """Convolutions, a Gemm, a MatMul and a Softmax."""
    random = np.random.default_rng(7)
    model = models.convnet(16, 8, 2)
    model.graph.node.append(helper.make_node("Gemm", ["logits", "g", "b"], ["gemm"], transB=1))
    model.graph.node.append(helper.make_node("Softmax", ["gemm"], ["probabilities"], name="softmax"))
    model.graph.initializer.append(numpy_helper.from_array(random.standard_normal((5, 10)).astype(np.float32), "g"))
    model.graph.initializer.append(numpy_helper.from_array(random.standard_normal(5).astype(np.float32), "b"))
    del model.graph.output[:]
    model.graph.output.append(models.tensor("probabilities", ["batch", 5]))
    return model


IMAGES = RANDOM.standard_normal((16, 3, 16, 16)).astype(np.float32)


def types(proto):
    return {value.name: value.type.tensor_type.elem_type for value in [*proto.graph.input, *proto.graph.output]}


def weight_types(proto):
    return {tensor.data_type for tensor in proto.graph.initializer if tensor.dims}


def operators(proto, name):
    return [node for node in proto.graph.node if node.op_type == name]


def producers(proto):
    return {output: node for node in proto.graph.node for output in node.output}


def values(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


class TestAsIs:
    def test_the_file_itself_is_built(self, recipe, tmp_path):
        result, _ = recipe(models.linear())
        assert result.path == tmp_path / "original" / "model.onnx" and result.tool == ""


class TestFp16:
    def test_weights_are_half_and_the_ends_stay_single(self, recipe):
        result, proto = recipe(classifier(), precision="fp16")
        assert result.tool.startswith(f"onnxruntime {onnxruntime.__version__}")
        assert weight_types(proto) == {HALF} and set(types(proto).values()) == {FLOAT}

    def test_results_are_close_to_single_precision(self, recipe):
        original = classifier()
        _, proto = recipe(original, precision="fp16")
        (expected,), (got,) = run(original, image=IMAGES), run(proto, image=IMAGES)
        assert 0 < np.abs(expected - got).max() < 5e-3

    def test_the_ends_change_too_when_they_may(self, recipe):
        _, proto = recipe(classifier(), precision="fp16", keep_io_types=False)
        assert set(types(proto).values()) == {HALF}

    def test_listed_operators_stay_in_single_precision(self, recipe):
        _, proto = recipe(classifier(), precision="fp16", keep_fp32_ops=("MatMul", "Conv"))
        kept = [tensor for tensor in proto.graph.initializer if tensor.name.startswith(("k", "w"))]
        assert {tensor.data_type for tensor in kept} == {FLOAT}
        assert {tensor.data_type for tensor in proto.graph.initializer if tensor.name in "gb"} == {HALF}

    def test_weights_beyond_half_precision_are_named(self, recipe, caplog):
        recipe(models.scale(1e6), precision="fp16")
        assert "weights factor are beyond what FP16 holds (65504)" in caplog.text

    def test_weights_in_a_file_of_their_own_are_read(self, tmp_path):
        path = models.save_with_external_data(classifier(), tmp_path / "m" / "model.onnx")
        result = apply_recipe(read_onnx_model(path), BuildConfig(precision="fp16"), tmp_path)
        (expected,), (got,) = run(classifier(), image=IMAGES), run(onnx.load(result.path), image=IMAGES)
        assert weight_types(onnx.load(result.path)) == {HALF} and np.abs(expected - got).max() < 5e-3


class TestFp32:
    @pytest.mark.parametrize("elem_type", [HALF, BF16])
    def test_half_precision_becomes_single_and_the_ends_stay(self, recipe, elem_type):
        _, proto = recipe(half_linear(elem_type), precision="fp32")
        assert weight_types(proto) == {FLOAT} and set(types(proto).values()) == {elem_type}
        assert [node.op_type for node in proto.graph.node] == ["Cast", "MatMul", "Cast", "Mul", "Cast"]
        onnx.checker.check_model(proto, full_check=True)

    def test_it_is_more_exact_than_half_precision(self, recipe):
        x = RANDOM.standard_normal((4, 64)).astype(np.float16)
        original = half_linear(HALF)
        _, proto = recipe(original, precision="fp32", keep_io_types=False)
        (got,) = run(proto, x=x.astype(np.float32))
        (half,) = run(original, x=x)
        weights = values(original)["w"].astype(np.float64)
        exact = x.astype(np.float64) @ weights * 0.5
        assert np.abs(got - exact).max() < 1e-4 < np.abs(half - exact).max()
        assert set(types(proto).values()) == {FLOAT}

    def test_a_model_in_single_precision_stays_as_it_is(self, recipe):
        original = classifier()
        result, proto = recipe(original, precision="fp32")
        assert proto == original and result.tool == "trtserve 1"

    def test_subgraphs_are_widened_too(self, recipe):
        _, proto = recipe(branching(), precision="fp32")
        for condition, factor in ((True, 2), (False, -2)):
            x = np.array([1, 2], np.float16)
            (y,) = run(proto, condition=np.array(condition), x=x)
            assert y.dtype == np.float16 and y.tolist() == [factor, 2 * factor]
        branch = proto.graph.node[1].attribute[0].g
        assert branch.output[0].type.tensor_type.elem_type == FLOAT

    def test_an_input_that_is_an_output_is_cast_through(self, recipe):
        x = np.ones((1, 2), np.float16)
        _, proto = recipe(models.identity(HALF, ["batch", 2]), precision="fp32")
        assert run(proto, x=x)[0].dtype == np.float16


def half_linear(elem_type):
    """[batch, 64] @ [64, 8], a Cast and a Mul."""
    import ml_dtypes

    dtype = np.float16 if elem_type == HALF else ml_dtypes.bfloat16
    weights = np.random.default_rng(1).standard_normal((64, 8)).astype(dtype)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["a"], ["c"], to=elem_type),
        helper.make_node("Mul", ["c", "half"], ["y"]),
    ]
    model = models.model(
        nodes, [models.tensor("x", ["batch", 64], elem_type)], [models.tensor("y", ["batch", 8], elem_type)]
    )
    for name, array in (("w", weights), ("half", np.full((1,), 0.5, dtype))):
        model.graph.initializer.append(
            helper.make_tensor(name, elem_type, array.shape, array.astype(np.float32).flatten())
        )
    return model


def branching():
    """y = x * 2 where the condition holds, else x * -2, all in half precision and in subgraphs."""

    def branch(factor):
        constant = helper.make_tensor("value", HALF, [1], [factor])
        nodes = [
            helper.make_node("Constant", [], ["factor"], value=constant),
            helper.make_node("Mul", ["x", "factor"], ["out"]),
        ]
        return helper.make_graph(nodes, "branch", [], [models.tensor("out", [2], HALF)])

    node = helper.make_node("If", ["condition"], ["y"], then_branch=branch(2), else_branch=branch(-2))
    inputs = [models.tensor("condition", [], TensorProto.BOOL), models.tensor("x", [2], HALF)]
    return models.model([node], inputs, [models.tensor("y", [2], HALF)])


class TestInt8:
    @pytest.fixture
    def samples(self, tmp_path):
        np.savez(tmp_path / "samples.npz", image=IMAGES)
        return str(tmp_path / "samples.npz")

    @pytest.fixture
    def quantised(self, recipe, samples):
        return recipe(classifier(), precision="int8", calibration=samples)[1]

    def test_results_are_near_those_of_single_precision(self, quantised):
        (expected,), (got,) = run(classifier(), image=IMAGES), run(quantised, image=IMAGES)
        assert 0 < np.abs(expected - got).max() < 0.05
        assert (expected.argmax(1) == got.argmax(1)).mean() > 0.9

    def test_every_zero_point_is_zero_and_every_type_signed(self, quantised):
        arrays = values(quantised)
        nodes = operators(quantised, "QuantizeLinear") + operators(quantised, "DequantizeLinear")
        zero_points = [arrays[node.input[2]] for node in nodes]
        assert zero_points and all(not zero.any() and zero.dtype == np.int8 for zero in zero_points)

    @pytest.mark.parametrize(("operator", "axis"), [("Conv", 0), ("Gemm", 0), ("MatMul", 1)])
    def test_weights_have_a_scale_per_output_channel(self, quantised, operator, axis):
        arrays, made_by = values(quantised), producers(quantised)
        for node in operators(quantised, operator):
            dequantise = made_by[node.input[1]]
            quantise = made_by[dequantise.input[0]]
            weights = arrays[quantise.input[0]]
            assert dequantise.op_type == "DequantizeLinear" and weights.dtype == np.float32
            assert arrays[dequantise.input[1]].shape == (weights.shape[axis],)
            assert helper.get_node_attr_value(dequantise, "axis") == axis

    def test_activations_have_one_scale_and_biases_none(self, quantised):
        arrays, made_by = values(quantised), producers(quantised)
        for operator in ("Conv", "Gemm", "MatMul"):
            for node in operators(quantised, operator):
                assert arrays[made_by[node.input[0]].input[1]].shape == ()
        (gemm,) = operators(quantised, "Gemm")
        assert gemm.input[2] == "b" and arrays["b"].dtype == np.float32

    def test_the_output_of_a_convolution_goes_on_as_it_is(self, quantised):
        results = {node.output[0] for node in operators(quantised, "Conv")}
        assert {node.op_type for node in quantised.graph.node if results & set(node.input)} == {"Relu"}

    def test_the_ends_stay_in_single_precision(self, quantised):
        assert set(types(quantised).values()) == {FLOAT}

    def test_listed_operators_stay_as_they_are(self, recipe, samples):
        _, proto = recipe(classifier(), precision="int8", calibration=samples, keep_fp32_ops=("Conv",))
        made_by = producers(proto)
        assert all(node.input[1] not in made_by for node in operators(proto, "Conv"))
        assert made_by[operators(proto, "MatMul")[0].input[1]].op_type == "DequantizeLinear"

    @pytest.mark.parametrize("method", ["entropy", "percentile"])
    def test_every_method_gives_a_model_that_works(self, recipe, samples, method):
        _, proto = recipe(classifier(), precision="int8", calibration=samples, calibration_method=method)
        (expected,), (got,) = run(classifier(), image=IMAGES), run(proto, image=IMAGES)
        assert np.abs(expected - got).max() < 0.2

    def test_an_old_opset_is_raised_to_one_with_channels(self, recipe, samples):
        model = models.convnet(16, 8, 2)
        model.opset_import[0].version = 11
        _, proto = recipe(model, precision="int8", calibration=samples)
        assert proto.opset_import[0].version >= 13 and operators(proto, "QuantizeLinear")

    def test_a_model_without_matrices_is_refused(self, recipe, tmp_path):
        np.savez(tmp_path / "s.npz", x=np.zeros((2, 4), np.float32))
        with pytest.raises(RecipeError, match="has none of Conv, ConvTranspose, Gemm, MatMul that int8 is for"):
            recipe(models.scale(2), precision="int8", calibration=str(tmp_path / "s.npz"))

    def test_samples_must_fit_the_model(self, recipe, tmp_path):
        np.savez(tmp_path / "s.npz", x=np.zeros((2, 4), np.float32))
        with pytest.raises(SignatureError, match="has no array for input 'image'"):
            recipe(classifier(), precision="int8", calibration=str(tmp_path / "s.npz"))


@pytest.mark.parametrize(
    ("options", "tool"),
    [
        ({}, ""),
        ({"precision": "fp32"}, "trtserve 1"),
        ({"precision": "fp16", "precision_tool": "onnxruntime"}, "onnxruntime"),
        ({"precision": "int8", "calibration": "unread.npz"}, "onnxruntime"),
    ],
)
def test_the_tool_is_known_before_it_runs(options, tool):
    assert recipe_tool(BuildConfig(**options)).startswith(tool)


def test_bf16_needs_modelopt(recipe):
    with pytest.raises(RecipeError, match="bf16 needs NVIDIA's ModelOpt, which was not found: install"):
        recipe(models.linear(), precision="bf16")


def test_what_a_converter_cannot_do_is_one_line(recipe, tmp_path):
    nodes = [helper.make_node("NoSuch", ["x"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    weights = {"w": np.eye(4, dtype=np.float32)}
    model = models.model(nodes, [models.tensor("x", [1, 4])], [models.tensor("y", [1, 4])], weights)
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 4), np.float32))
    with pytest.raises(RecipeError, match="could not rewrite .*model.onnx to int8: .*NoSuch.* or build it as-is"):
        recipe(model, precision="int8", calibration=str(tmp_path / "s.npz"))
