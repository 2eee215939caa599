"""ONNX + BuildConfig to a plan, on both generations of the simulated TensorRT: options, profiles, errors, progress."""

import json
import struct

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from trtserve_engines.config import ConfigError
from trtserve_engines.errors import (
    BackendUnavailableError,
    BuildCancelledError,
    BuildError,
    UnsupportedModelError,
)
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.builder import build_plan
from trtserve_engines.tensorrt.parse_onnx import unsupported_nodes
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.trt_log import tensorrt_log

HEADER = 32


def metadata(plan):
    """What the simulation wrote into the plan."""
    data = bytes(plan)
    (length,) = struct.unpack_from("<I", data, HEADER)
    return json.loads(data[HEADER + 4 : HEADER + 4 + length])


@pytest.fixture
def build(trt, tmp_path):
    def build(model, on_progress=None, timings=b"", **options):
        path = models.save(model, tmp_path / "model.onnx")
        config = with_profiles(BuildConfig(**options), read_onnx_model(path).signature)
        return build_plan(trt, path, config, on_progress=on_progress, timing_cache=timings)

    return build


def unsupported():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Det", ["a"], ["y"], name="head/det"),
    ]
    return models.model(nodes, [models.tensor("x", [2, 2])], [models.tensor("y", [])])


def reshape():
    node = helper.make_node("Reshape", ["x", "target"], ["y"])
    inputs = [models.tensor("x", [12]), models.tensor("target", [2], TensorProto.INT64)]
    return models.model([node], inputs, [models.tensor("y", [None, None])])


def test_a_model_becomes_a_plan_of_this_version(trt, build):
    built = build(models.linear())
    assert bytes(built.plan[:4]) == b"ftrt" and built.tensorrt_version == trt.__version__
    assert built.seconds >= 0 and built.warnings == ()
    assert trt.Runtime(tensorrt_log(trt).native).deserialize_cuda_engine(built.plan) is not None


def test_the_derived_profile_is_in_the_plan(build):
    (profile,) = metadata(build(models.linear(), max_batch_size=8, preferred_batch_size=4).plan)["profiles"]
    assert profile == {"shapes": {"x": [[1, 16], [4, 16], [8, 16]]}, "values": {}}


def test_several_profiles_keep_their_order(build):
    plan = build(models.linear(), profiles=("x=1x16:2x16:4x16", "x=8x16")).plan
    assert [profile["shapes"]["x"][2] for profile in metadata(plan)["profiles"]] == [[4, 16], [8, 16]]


def test_a_static_model_has_no_profile(build):
    assert metadata(build(models.add([4])).plan)["profiles"] == []


def test_networks_are_strongly_typed_in_both_generations(build):
    assert metadata(build(models.linear()).plan)["strongly_typed"] is True


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        ({}, {"flags": ["TF32"], "optimization_level": 3, "max_aux_streams": 0, "workspace": {}}),
        ({"tf32": False}, {"flags": []}),
        ({"sparse_weights": True, "strict_nans": True}, {"flags": ["SPARSE_WEIGHTS", "STRICT_NANS", "TF32"]}),
        ({"distributive_independence": True}, {"flags": ["DISTRIBUTIVE_INDEPENDENCE", "TF32"]}),
        ({"version_compatible": True}, {"flags": ["EXCLUDE_LEAN_RUNTIME", "TF32", "VERSION_COMPATIBLE"]}),
        ({"refit": "all"}, {"flags": ["REFIT", "TF32"]}),
        ({"refit": "identical"}, {"flags": ["REFIT_IDENTICAL", "TF32"]}),
        ({"refit": "individual"}, {"flags": ["REFIT_INDIVIDUAL", "TF32"]}),
        ({"timing_cache": False}, {"flags": ["DISABLE_TIMING_CACHE", "TF32"]}),
        ({"optimization_level": 5}, {"optimization_level": 5}),
        ({"workspace_bytes": 1 << 28}, {"workspace": {"WORKSPACE": 1 << 28}}),
        ({"max_aux_streams": 3}, {"max_aux_streams": 3}),
        ({"max_aux_streams": -1}, {"max_aux_streams": -1}),
        ({"avg_timing_iterations": 8, "max_num_tactics": 3}, {"avg_timing_iterations": 8, "max_num_tactics": 3}),
        ({"tiling": "moderate"}, {"tiling": "MODERATE"}),
        ({"hardware_compatibility": "same_compute_capability"}, {"hardware_compatibility": "SAME_COMPUTE_CAPABILITY"}),
        ({"hardware_compatibility": "ampere_plus"}, {"hardware_compatibility": "AMPERE_PLUS"}),
        ({"profiling_verbosity": "detailed"}, {"profiling_verbosity": "DETAILED"}),
        ({"tactic_sources": ("none",)}, {"tactic_sources": 0}),
    ],
)
def test_options_reach_tensorrt_by_name(build, options, recorded):
    found = metadata(build(models.linear(), **options).plan)
    found["flags"] = sorted(found["flags"])
    assert {name: found[name] for name in recorded} == recorded


def test_tactic_sources_get_the_bits_of_their_generation(trt, build):
    mask = metadata(build(models.linear(), tactic_sources=("jit_convolutions",)).plan)["tactic_sources"]
    assert mask == 1 << int(trt.TacticSource.JIT_CONVOLUTIONS)


def test_an_option_that_only_ten_has_is_refused_by_eleven(build, generation):
    if generation == "10.16":
        assert build(models.linear(), tactic_sources=("cudnn",))
        return
    with pytest.raises(ConfigError, match="tactic_sources needs CUDNN, which TensorRT 11.4.0.106 does not have"):
        build(models.linear(), tactic_sources=("cudnn",))


def test_weights_in_files_of_their_own_are_found(trt, tmp_path):
    path = models.save_with_external_data(models.linear(), tmp_path / "model.onnx")
    config = with_profiles(BuildConfig(), read_onnx_model(path).signature)
    engine = trt.Runtime(tensorrt_log(trt).native).deserialize_cuda_engine(build_plan(trt, path, config).plan)
    assert engine.get_engine_stat() == 16 * 8 * 4


def test_what_the_parser_refuses_comes_back_whole(build):
    with pytest.raises(UnsupportedModelError) as caught:
        build(unsupported())
    message = str(caught.value)
    assert "node 1 'head/det', operator Det: No importer registered" in message and "(UNSUPPORTED_NODE)" in message
    assert "onnxruntime backend" in message and caught.value.log_lines


def test_every_unsupported_node_can_be_listed(trt, tmp_path):
    model = unsupported()
    model.graph.node.append(helper.make_node("Unique", ["a"], ["u"], name="unique"))
    path = models.save(model, tmp_path / "model.onnx")
    assert [(node.node, node.operator) for node in unsupported_nodes(trt, path, tensorrt_log(trt))] == [
        (1, "Det"),
        (2, "Unique"),
    ]
    models.save(models.linear(), path)
    assert unsupported_nodes(trt, path, tensorrt_log(trt)) == []


def test_a_type_that_tensorrt_lacks_is_named(build):
    with pytest.raises(UnsupportedModelError, match="unsupported datatype .* network input: x"):
        build(models.identity(TensorProto.UINT32, [4]))


def test_a_type_that_tensorrt_would_change_is_refused(build):
    with pytest.raises(UnsupportedModelError, match="'x' is float64 in the graph and would be FLOAT in TensorRT"):
        build(models.identity(TensorProto.DOUBLE, [4]))


def test_none_becomes_an_error_with_tensorrts_own_lines(trt, tmp_path):
    path = models.save(models.linear(), tmp_path / "model.onnx")
    with pytest.raises(BuildError, match="no optimization profile has been defined") as caught:
        build_plan(trt, path, BuildConfig())
    assert any("no optimization profile" in line for line in caught.value.log_lines)


def test_values_of_a_shape_input_are_part_of_the_profile(build):
    (profile,) = metadata(build(reshape(), profiles=("target=1x1:3x4:12x12",)).plan)["profiles"]
    assert profile == {"shapes": {}, "values": {"target": [[1, 1], [3, 4], [12, 12]]}}


def test_a_shape_input_without_values_is_asked_for(build):
    with pytest.raises(ConfigError, match="'target' is read as a shape, so every profile must name .* target=1x1:4x8"):
        build(reshape())


def test_values_for_an_input_that_is_no_shape_are_refused(build):
    model = models.identity(TensorProto.INT64, [2])
    with pytest.raises(ConfigError, match="'x', whose shape is fixed and which is not read as a shape"):
        build(model, profiles=("x=1x1:2x2:3x3",))


def test_progress_runs_to_the_end(build):
    seen = []
    build(models.convnet(8, 4, 2), on_progress=lambda progress: seen.append(progress) or True)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions) and fractions[0] > 0 and fractions[-1] == pytest.approx(1)
    assert "Tactic selection" in {progress.phase for progress in seen}


def test_a_build_can_be_ended_from_its_progress(build):
    with pytest.raises(BuildCancelledError, match="was cancelled"):
        build(models.convnet(8, 4, 2), on_progress=lambda progress: progress.fraction < 0.5)


def test_timings_of_one_build_serve_the_next(build, caplog):
    first = build(models.linear(), verbosity="verbose")
    with caplog.at_level("DEBUG"):
        second = build(models.linear(), timings=first.timing_cache, verbosity="verbose")
    assert "Layer MatMul: timing cache hit" in caplog.messages
    assert json.loads(second.timing_cache) == json.loads(first.timing_cache)


def test_timings_of_another_gpu_are_left_aside(build):
    foreign = json.dumps({"header": {"tensorrt": "9.9", "gpu": "other"}, "entries": {"k": 1.0}}).encode()
    assert "k" not in json.loads(build(models.linear(), timings=foreign).timing_cache)["entries"]


def test_without_a_timing_cache_none_comes_back(build):
    assert build(models.linear(), timing_cache=False).timing_cache == b""


def test_warnings_are_part_of_the_result(trt, build, monkeypatch):
    monkeypatch.setattr("trtserve_engines.tensorrt.builder.strongly_typed", lambda trt: 0)
    warnings = build(models.linear()).warnings
    assert bool(warnings) == (trt.__version__.startswith("10")), warnings


def test_a_driver_that_does_not_work_is_one_line(build, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["tensorrt._cuda"], "_open", lambda: None)
    with pytest.raises(BackendUnavailableError, match="cannot use the GPU: CUDA initialization failure with error: 35"):
        build(models.linear())


def plugin_model():
    node = helper.make_node("Twice", ["x"], ["y"], domain="my.plugins", name="twice")
    model = models.model([node], [models.tensor("x", [4])], [models.tensor("y", [4])])
    model.opset_import.append(helper.make_opsetid("my.plugins", 1))
    return model


def plugin_library(path):
    body = helper.make_node("Add", ["a", "a"], ["b"])
    function = helper.make_function("", "Twice", ["a"], ["b"], [body], [helper.make_opsetid("", 17)])
    library = models.model([], [], [])
    library.functions.append(function)
    onnx.save(library, path)
    return str(path)


def test_an_operator_of_a_plugin_needs_its_library(build, tmp_path):
    with pytest.raises(UnsupportedModelError, match="operator Twice.*Plugin not found.*name a plugin library"):
        build(plugin_model())
    library = plugin_library(tmp_path / "plugin.so")
    assert build(plugin_model(), plugins=(library,)).plan.nbytes


def test_a_library_that_is_not_there_or_none_is_one_line(build, tmp_path):
    with pytest.raises(BackendUnavailableError, match="missing.so is not there or cannot be read"):
        build(models.linear(), plugins=(str(tmp_path / "missing.so"),))
    (tmp_path / "bad.so").write_text("no library")
    with pytest.raises(BackendUnavailableError, match=r"bad.so cannot be loaded: .*Unable to load library"):
        build(models.linear(), plugins=(str(tmp_path / "bad.so"),))


def test_bf16_and_int8_inputs_are_built_as_they_are(trt, build):
    for elem_type, name in ((TensorProto.BFLOAT16, "BF16"), (TensorProto.INT8, "INT8"), (TensorProto.BOOL, "BOOL")):
        plan = build(models.identity(elem_type, ["batch", 4])).plan
        engine = trt.Runtime(tensorrt_log(trt).native).deserialize_cuda_engine(plan)
        assert engine.get_tensor_dtype("x") == getattr(trt.DataType, name)
    assert np.dtype(trt.nptype(trt.DataType.INT8)) == np.int8
