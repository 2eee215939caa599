"""A model that cannot be served stands in the index with a reason that names its file, while the one beside it serves.

Each case writes a model called "bad" into a repository that also has a good one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_engines.config import ConfigError

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]

X = np.ones((1, 4), np.float32)


class Case(NamedTuple):
    write: Callable[[Path], Any]
    words: tuple[str, ...]


CASES: list[Any] = []


def case(*words: str) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Adds a function that fills the folder of the model "bad", which is then unavailable for a reason with `words`."""

    def add(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
        CASES.append(pytest.param(Case(write, words), id=write.__name__))
        return write

    return add


def model_file(folder: Path) -> Path:
    (folder / "1").mkdir()
    return folder / "1" / "model.onnx"


def good_model(folder: Path) -> None:
    make_models.save(make_models.scale(2.0), folder / "1" / "model.onnx")


def configured(folder: Path, text: str, file: str = "config.pbtxt", proto: onnx.ModelProto | None = None) -> None:
    """A good model beside a configuration."""
    make_models.save(proto or make_models.scale(2.0), folder / "1" / "model.onnx")
    (folder / file).write_text(text)


# ---- The model file


@case("bad/1/model.onnx", "not an ONNX model", "export or copy it again")
def a_file_that_is_not_onnx(folder: Path) -> None:
    model_file(folder).write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)


@case("bad/1/model.onnx", "(0 bytes)", "not a whole ONNX model", "export or copy it again")
def an_empty_file(folder: Path) -> None:
    model_file(folder).write_bytes(b"")


@case("bad/1/model.onnx", "export or copy it again")
def a_file_that_is_cut_off(folder: Path) -> None:
    data = make_models.linear().SerializeToString()
    model_file(folder).write_bytes(data[: len(data) // 2])


@case("bad/1/model.onnx", "opset 999", "newest that is known here", "Export it with opset")
def an_opset_that_is_too_new(folder: Path) -> None:
    make_models.save(make_models.model([], [], [make_models.tensor("y", [1])], opset=999), model_file(folder))


@case("bad/1/model.onnx", "ONNX Runtime")
def an_operator_that_nobody_knows(folder: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"])
    tensors = [make_models.tensor(name, [1, 4]) for name in "xy"]
    make_models.save(make_models.model([node], tensors[:1], tensors[1:]), model_file(folder))


@case("bad/1/model.onnx", "ONNX Runtime")
def an_ir_version_that_is_too_new(folder: Path) -> None:
    proto = make_models.scale(2.0)
    proto.ir_version = 999
    make_models.save(proto, model_file(folder))


@case("bad/1/model.onnx", "'x'", "sequence", "only tensors can be served")
def an_input_that_is_no_tensor(folder: Path) -> None:
    x = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["n"])
    node = helper.make_node("SequenceLength", ["x"], ["y"])
    output = make_models.tensor("y", [], TensorProto.INT64)
    make_models.save(make_models.model([node], [x], [output]), model_file(folder))


@case("bad/1/model.onnx", "COMPLEX64")
def a_datatype_that_the_protocol_does_not_have(folder: Path) -> None:
    make_models.save(make_models.identity(TensorProto.COMPLEX64), model_file(folder))


@case("bad/1/model.onnx", "'weights.bin'", "copy it there")
def external_data_that_is_missing(folder: Path) -> None:
    make_models.save_with_external_data(make_models.linear(), model_file(folder))
    (folder / "1" / "weights.bin").unlink()


@case("bad/1/model.onnx", "External initializer", "file_length: 4")
def external_data_that_is_cut_off(folder: Path) -> None:
    make_models.save_with_external_data(make_models.linear(), model_file(folder))
    (folder / "1" / "weights.bin").write_bytes(b"\0" * 4)


def with_external_data_at(folder: Path, location: str) -> None:
    proto = make_models.save_with_external_data(make_models.linear(), model_file(folder))
    model = onnx.load(proto, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    proto.write_bytes(model.SerializeToString())


@case("bad/1/model.onnx", "'../../good/1/model.onnx'", "outside its folder", "not opened", "beside it")
def external_data_in_another_folder(folder: Path) -> None:
    with_external_data_at(folder, "../../good/1/model.onnx")


@case("bad/1/model.onnx", "'/etc/hostname'", "outside its folder", "not opened")
def external_data_at_an_absolute_path(folder: Path) -> None:
    with_external_data_at(folder, "/etc/hostname")


@case("bad/1/model.onnx", "'link.bin'", "outside its folder", "not opened")
def external_data_behind_a_link_to_another_folder(folder: Path) -> None:
    with_external_data_at(folder, "link.bin")
    (folder / "1" / "link.bin").symlink_to("/etc/hostname")


@case("bad/1/model.onnx", "'../../pipe'", "outside its folder", "not opened")
def external_data_that_would_hold_up_whoever_opened_it(folder: Path) -> None:
    os.mkfifo(folder.parent / "pipe")
    with_external_data_at(folder, "../../pipe")


@case("bad/1/model.onnx", "cannot be read", "check its permissions")
def a_file_that_cannot_be_read(folder: Path) -> None:
    # Not by its permissions, which do not hold for root: a process has no memory at address 0.
    model_file(folder).symlink_to("/proc/self/mem")


@case("bad/1/model.onnx", "is a folder", "wanted is an ONNX file")
def a_folder_in_place_of_the_file(folder: Path) -> None:
    model_file(folder).mkdir()


# ---- The folders


@case("bad/1", "holds no model.onnx", "put the ONNX file there", "default_model_filename")
def an_empty_version_folder(folder: Path) -> None:
    (folder / "1").mkdir()


@case("bad/1", "holds no model.onnx")
def a_model_file_of_another_name(folder: Path) -> None:
    make_models.save(make_models.scale(2.0), folder / "1" / "net.onnx")


@case("bad/1", "holds no model.onnx")
def a_link_that_leads_nowhere(folder: Path) -> None:
    model_file(folder).symlink_to("nowhere.onnx")


@case("bad", "holds no version folder", "bad/1/model.onnx")
def no_version_folder(folder: Path) -> None:
    make_models.save(make_models.scale(2.0), folder / "model.onnx")


@case("bad", "holds no version folder")
def only_folders_that_are_no_versions(folder: Path) -> None:
    make_models.save(make_models.scale(2.0), folder / "v1" / "model.onnx")


# ---- config.pbtxt


@case("bad/config.pbtxt", "2:1")
def a_syntax_error_in_config_pbtxt(folder: Path) -> None:
    configured(folder, 'name: "bad"\n}')


@case("bad/config.pbtxt", "1:1", "max_batch_sise")
def an_unknown_field_in_config_pbtxt(folder: Path) -> None:
    configured(folder, "max_batch_sise: 8")


@case("bad/config.pbtxt", "'worse'", "'bad'", "make them the same")
def a_name_in_config_pbtxt_that_is_not_the_folders(folder: Path) -> None:
    configured(folder, 'name: "worse"')


@case("bad/config.pbtxt", "input 'x'", "FP64", "FP32")
def a_datatype_in_config_pbtxt_that_is_not_the_graphs(folder: Path) -> None:
    configured(folder, 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP64 dims: 4 }')


@case("bad/config.pbtxt", "input 'x'", "[5]", "[4]", "behind its batch dimension")
def dimensions_in_config_pbtxt_that_are_not_the_graphs(folder: Path) -> None:
    configured(folder, 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 5 }')


@case("bad/config.pbtxt", "output 'z'", "'y'")
def an_output_in_config_pbtxt_that_the_graph_does_not_have(folder: Path) -> None:
    configured(folder, 'max_batch_size: 8 output { name: "z" data_type: TYPE_FP32 dims: 4 }')


@case("bad/config.pbtxt", "TYPE_FP31")
def a_datatype_in_config_pbtxt_that_does_not_exist(folder: Path) -> None:
    configured(folder, 'input { name: "x" data_type: TYPE_FP31 }')


@case("bad/config.pbtxt", "'x'", "99")
def a_datatype_in_config_pbtxt_of_an_unknown_number(folder: Path) -> None:
    configured(folder, 'input { name: "x" data_type: 99 }')


@case("bad/config.pbtxt", "sequence_batching", "state between requests")
def sequence_batching(folder: Path) -> None:
    configured(folder, "sequence_batching { }")


@case("bad/config.pbtxt", "a step names no model")
def an_ensemble_without_models(folder: Path) -> None:
    configured(folder, "ensemble_scheduling { step { } }")


@case("bad/config.pbtxt", "'python'", "only ONNX models")
def a_backend_for_other_models(folder: Path) -> None:
    configured(folder, 'backend: "python"')


@case("bad/config.pbtxt", "reshape [2, 2] is configured", "the graph has [4]")
def a_reshape(folder: Path) -> None:
    configured(folder, 'max_batch_size: 8 input { name: "x" dims: 4 reshape { shape: [2, 2] } }')


@case("bad/config.pbtxt", "max_batch_size = -1", "at least 0")
def a_batch_size_below_zero(folder: Path) -> None:
    configured(folder, "max_batch_size: -1")


@case("bad/config.pbtxt", "16", "max_batch_size = 8")
def a_preferred_size_above_the_largest(folder: Path) -> None:
    configured(folder, "max_batch_size: 8 dynamic_batching { preferred_batch_size: 16 }")


@case("bad/config.pbtxt", "cannot be read", "utf-8", "byte 0xff")
def a_config_pbtxt_that_is_not_text(folder: Path) -> None:
    good_model(folder)
    (folder / "config.pbtxt").write_bytes(b"\xff\xfe")


@case("bad/config.pbtxt", "cannot be read", "Is a directory")
def a_folder_in_place_of_config_pbtxt(folder: Path) -> None:
    good_model(folder)
    (folder / "config.pbtxt").mkdir()


# ---- model.toml


@case("bad/model.toml", "'max_batchsize' is unknown", "did you mean 'max_batch_size'")
def an_unknown_key_in_model_toml(folder: Path) -> None:
    configured(folder, "max_batchsize = 8", "model.toml")


@case("bad/model.toml", "batching", "'max_queue_sise' is unknown", "did you mean 'max_queue_size'")
def an_unknown_key_in_a_table_of_model_toml(folder: Path) -> None:
    configured(folder, "[batching]\nmax_queue_sise = 8", "model.toml")


@case("bad/model.toml", "inputs", "'dtype' is unknown", "did you mean 'datatype'")
def an_unknown_key_in_a_list_of_model_toml(folder: Path) -> None:
    configured(folder, 'inputs = [{ name = "x", dtype = "FP32" }]', "model.toml")


@case("bad/model.toml", "line 1")
def a_syntax_error_in_model_toml(folder: Path) -> None:
    configured(folder, "max_batch_size == 8", "model.toml")


@case("bad/model.toml", "instances = 'two'", "wanted is int", "given is str")
def a_value_of_the_wrong_type_in_model_toml(folder: Path) -> None:
    configured(folder, 'instances = "two"', "model.toml")


@case("bad/model.toml", "max_batch_size = -1", "at least 0")
def a_value_out_of_range_in_model_toml(folder: Path) -> None:
    configured(folder, "max_batch_size = -1", "model.toml")


@case("bad/model.toml", "graph_optimization_level = 'most'", "one of disabled, basic, extended, all")
def a_choice_in_model_toml_that_there_is_not(folder: Path) -> None:
    configured(folder, '[onnxruntime]\ngraph_optimization_level = "most"', "model.toml")


@case("bad/model.toml", "input 'x'", "INT8", "FP32")
def a_datatype_in_model_toml_that_is_not_the_graphs(folder: Path) -> None:
    configured(folder, 'inputs = [{ name = "x", datatype = "INT8" }]', "model.toml")


@case("bad/model.toml", "'worse'", "'bad'")
def a_name_in_model_toml_that_is_not_the_folders(folder: Path) -> None:
    configured(folder, 'name = "worse"', "model.toml")


@case("bad", "both model.toml and config.pbtxt", "remove one of them")
def both_configuration_files(folder: Path) -> None:
    configured(folder, "")
    configured(folder, "", "model.toml")


# ---- Configuration against graph


@case("bad/model.toml", "max_batch_size = 8", "x [2, 4]", "Set max_batch_size = 0 or export")
def a_batch_size_for_a_graph_of_one_size(folder: Path) -> None:
    configured(folder, "max_batch_size = 8", "model.toml", make_models.identity(dims=(2, 4)))


@case("bad/config.pbtxt", "max_batch_size = 8", "[2, 4]", "Set max_batch_size = 0 or export")
def a_batch_size_in_config_pbtxt_for_a_graph_of_one_size(folder: Path) -> None:
    configured(folder, "max_batch_size: 8", proto=make_models.identity(dims=(2, 4)))


@case("bad/model.toml", "max_batch_size = 8", "no inputs")
def a_batch_size_for_a_graph_without_inputs(folder: Path) -> None:
    node = helper.make_node("Constant", [], ["y"], value_floats=[1.0, 2.0])
    proto = make_models.model([node], [], [make_models.tensor("y", ["n"])])
    configured(folder, "max_batch_size = 8", "model.toml", proto)


@case("output 'y'", "bad/labels.txt", "cannot be read", "No such file")
def a_label_file_that_is_missing(folder: Path) -> None:
    configured(folder, 'outputs = [{ name = "y", label_filename = "labels.txt" }]', "model.toml")


@case("warm-up with made-up inputs failed", "warmup_runs = 0")
def a_model_that_fails_on_every_input(folder: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    weights = {"shape": np.array([1, 7])}
    inputs, outputs = [make_models.tensor("x", ["batch", 4])], [make_models.tensor("y", ["batch", 7])]
    make_models.save(make_models.model([node], inputs, outputs, weights), model_file(folder))


# ---- All of them


@pytest.mark.parametrize("case", CASES)
def test_a_bad_model_is_unavailable_with_the_reason_and_a_good_one_serves(
    serve: Serve, connect: Connect, tmp_path: Path, case: Case
) -> None:
    good_model(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    case.write(tmp_path / "bad")
    client = connect(serve(model_repository=(str(tmp_path),)))
    states = client.states()
    assert states["good"] == ("READY", "")
    state, reason = states["bad"]
    assert state == "UNAVAILABLE"
    assert [word for word in case.words if word not in reason] == [], reason
    assert len(reason.splitlines()) == 1
    assert not client.call("ModelReady", name="bad").ready
    for name, message in (
        ("ModelInfer", infer_request("bad", {"x": X})),
        ("ModelMetadata", None),
        ("ModelConfig", None),
    ):
        error = client.error(name, message) if message else client.error(name, name="bad")
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details().startswith("model 'bad'")
        assert reason[:500] in error.details()
    np.testing.assert_array_equal(client.infer(infer_request("good", {"x": X}))["y"], 2 * X)


def test_no_beginning_of_a_model_is_taken_for_the_model(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    data = make_models.scale(2.0).SerializeToString()
    for size in range(len(data) + 1):
        folder = tmp_path / f"first_{size:04}" / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(data[:size])
    models = connect(serve(model_repository=(str(tmp_path),))).call("RepositoryIndex").models
    assert [model.name for model in models if model.state == "READY"] == [f"first_{len(data):04}"]
    assert all("model.onnx" in model.reason for model in models[:-1])


def test_two_models_of_one_name_are_both_refused_by_name(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    for repository in ("one", "two"):
        good_model(tmp_path / repository / "twin")
    good_model(tmp_path / "one" / "good")
    client = connect(serve(model_repository=(str(tmp_path / "one"), str(tmp_path / "two"))))
    states = client.states()
    assert states["good"] == ("READY", "")
    state, reason = states["twin"]
    assert state == "UNAVAILABLE"
    assert str(tmp_path / "one" / "twin") in reason
    assert str(tmp_path / "two" / "twin") in reason
    assert "rename one of them" in reason
    error = client.error("ModelInfer", infer_request("twin", {"x": X}))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_a_file_and_a_folder_of_one_name_are_refused_too(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    good_model(tmp_path / "repository" / "twin")
    file = make_models.save(make_models.scale(2.0), tmp_path / "twin.onnx")
    client = connect(serve(model=(str(file),), model_repository=(str(tmp_path / "repository"),)))
    assert client.states()["twin"][0] == "UNAVAILABLE"


def test_a_folder_whose_name_is_not_utf8_is_unavailable_under_a_name_that_is(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    good_model(tmp_path / "good")
    good_model(Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")))
    client = connect(serve(model_repository=(str(tmp_path),)))
    states = client.states()
    assert states.pop("good") == ("READY", "")
    ((name, (state, reason)),) = states.items()
    assert (name[:3], state) == ("bad", "UNAVAILABLE")
    assert "UTF-8" in reason
    assert "rename" in reason
    np.testing.assert_array_equal(client.infer(infer_request("good", {"x": X}))["y"], 2 * X)


def test_hidden_folders_and_files_of_a_repository_are_left_alone(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    good_model(tmp_path / "good")
    for name in (".git", "_old"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text("not a model")
    assert connect(serve(model_repository=(str(tmp_path),))).states() == {"good": ("READY", "")}


def test_a_field_of_config_pbtxt_that_has_no_effect_here_is_named_in_the_log(
    serve: Serve, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "good").mkdir()
    configured(tmp_path / "good", 'optimization { priority: PRIORITY_MAX } parameters { key: "a" }')
    assert connect(serve(model_repository=(str(tmp_path),))).states() == {"good": ("READY", "")}
    assert "no effect here: optimization.priority (models share the device evenly), parameters['a']" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "tensorrt"}, "backend tensorrt was asked for"),
        ({"device": "gpu"}, "device gpu was asked for"),
        ({"device": "gpu:0,1"}, "device gpu:0,1 was asked for"),
    ],
    ids=str,
)
def test_a_backend_or_device_that_is_not_here_is_never_replaced_unasked(
    serve: Serve, tmp_path: Path, options: dict[str, str], words: str
) -> None:
    good_model(tmp_path / "model")
    with pytest.raises(ConfigError) as error:
        serve(model_repository=(str(tmp_path),), **options)
    assert words in str(error.value)
    assert f"use --{next(iter(options))} " in str(error.value)


def test_a_model_that_fails_on_made_up_inputs_alone_serves_without_warm_up(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    # Made-up strings are no numbers.
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)
    x, y = make_models.tensor("x", ["n"], TensorProto.STRING), make_models.tensor("y", ["n"], TensorProto.INT64)
    for name in ("cold", "warm"):
        make_models.save(make_models.model([node], [x], [y]), tmp_path / name / "1" / "model.onnx")
    (tmp_path / "cold" / "model.toml").write_text("warmup_runs = 0\nmax_batch_size = 0\n")
    client = connect(serve(model_repository=(str(tmp_path),)))
    assert client.states()["warm"][0] == "UNAVAILABLE"
    assert "warmup_runs = 0" in client.states()["warm"][1]
    numbers = np.array([b"12", b"-3"], object)
    assert client.infer(infer_request("cold", {"x": numbers}))["y"].tolist() == [12, -3]
