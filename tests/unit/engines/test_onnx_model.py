"""Reading ONNX files: signatures, what is refused and how, and the digest."""

import hashlib
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper

from tests.models import make_models as models
from trtserve_engines.errors import ModelFileError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

FLOAT32 = np.dtype(np.float32)
NEWEST_OPSET = defs.onnx_opset_version()
AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")


def read(proto, folder):
    return read_onnx_model(models.save(proto, folder / "model.onnx"))


def refused(path):
    with pytest.raises(ModelFileError) as caught:
        read_onnx_model(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def identity_of(*values):
    """A model that gives each of these inputs back, whatever its type is."""
    nodes = [helper.make_node("Identity", [value.name], [f"{value.name}_out"]) for value in values]
    outputs = []
    for value in values:
        output = onnx.ValueInfoProto()
        output.CopyFrom(value)
        output.name = f"{value.name}_out"
        outputs.append(output)
    return models.model(nodes, values, outputs)


# ---- signature ----


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (["batch", 3], (DYNAMIC, 3)),
        (["batch", "width"], (DYNAMIC, DYNAMIC)),
        ([None, None], (DYNAMIC, DYNAMIC)),
        ([2, 0], (2, 0)),
        ([1], (1,)),
        ([], ()),
    ],
    ids=str,
)
def test_dimensions_are_sizes_or_dynamic(tmp_path, dims, shape):
    model = read(models.identity(dims=dims), tmp_path)
    assert model.signature == Signature((TensorSpec("x", FLOAT32, shape),), (TensorSpec("y", FLOAT32, shape),))
    assert (model.opset, model.external_files) == (17, ())


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("BOOL", np.bool_),
        ("UINT8", np.uint8),
        ("UINT16", np.uint16),
        ("UINT32", np.uint32),
        ("UINT64", np.uint64),
        ("INT8", np.int8),
        ("INT16", np.int16),
        ("INT32", np.int32),
        ("INT64", np.int64),
        ("FLOAT16", np.float16),
        ("FLOAT", np.float32),
        ("DOUBLE", np.float64),
        ("BFLOAT16", ml_dtypes.bfloat16),
        ("STRING", object),
    ],
)
def test_element_types_are_those_of_numpy(tmp_path, name, dtype):
    model = read(models.identity(TensorProto.DataType.Value(name)), tmp_path)
    assert [spec.dtype for spec in model.signature.inputs + model.signature.outputs] == [np.dtype(dtype)] * 2


@pytest.mark.parametrize("name", ["COMPLEX64", "COMPLEX128", "FLOAT8E4M3FN", "FLOAT8E5M2", "UINT4", "INT4"])
def test_element_types_that_no_request_can_carry_are_refused(tmp_path, name):
    message = refused(models.save(models.identity(TensorProto.DataType.Value(name)), tmp_path / "model.onnx"))
    assert f"'x' has the ONNX element type {name}, which cannot be served; wanted is one of FLOAT, " in message


@pytest.mark.parametrize("number", [0, 250])
def test_unknown_element_types_are_refused(tmp_path, number):
    message = refused(models.save(models.identity(number), tmp_path / "model.onnx"))
    assert f"'x' has the ONNX element type {number}, which is unknown here" in message


def test_inputs_and_outputs_keep_the_models_order(tmp_path):
    model = read(identity_of(*(models.tensor(name, [1]) for name in "cab")), tmp_path)
    assert [spec.name for spec in model.signature.inputs] == ["c", "a", "b"]
    assert [spec.name for spec in model.signature.outputs] == ["c_out", "a_out", "b_out"]


def test_weights_that_are_listed_as_inputs_are_no_inputs(tmp_path):
    proto = models.linear()
    proto.ir_version = 3
    proto.graph.input.append(models.tensor("w", [16, 8]))
    assert [spec.name for spec in read(proto, tmp_path).signature.inputs] == ["x"]


def test_a_model_may_have_no_inputs(tmp_path):
    node = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [5]))
    assert read(models.model([node], [], [models.tensor("y", [1])]), tmp_path).signature.inputs == ()


@pytest.mark.parametrize("operator", ["If", "Loop", "Scan", "SequenceMap"])
def test_operators_whose_work_depends_on_values_are_noticed(tmp_path, operator):
    node = helper.make_node(operator, ["x"], ["z"])
    in_graph, in_function = models.identity(), models.identity()
    in_graph.graph.node.append(node)
    in_function.functions.append(
        helper.make_function("com.example", "F", ["x"], ["z"], [node], [helper.make_opsetid("", 17)])
    )
    assert read(in_graph, tmp_path).has_control_flow
    assert read(in_function, tmp_path).has_control_flow


def test_a_model_without_such_operators_has_no_control_flow(tmp_path):
    assert not read(models.convnet(size=8, channels=2, depth=1), tmp_path).has_control_flow


# ---- refusals ----


@pytest.mark.parametrize(
    ("kind", "type_proto"),
    [
        ("sequence_type", helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))),
        ("optional_type", helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))),
        ("nothing", onnx.TypeProto()),
    ],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_what_is_no_tensor_is_refused(tmp_path, side, kind, type_proto):
    proto = models.identity()
    (value,) = getattr(proto.graph, side)
    value.type.CopyFrom(type_proto)
    message = refused(models.save(proto, tmp_path / "model.onnx"))
    assert f"{value.name!r} is a {kind}; only tensors can be served" in message


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_tensor_without_a_shape_is_refused(tmp_path, side):
    proto = models.identity()
    (value,) = getattr(proto.graph, side)
    value.type.tensor_type.ClearField("shape")
    message = refused(models.save(proto, tmp_path / "model.onnx"))
    assert f"{value.name!r} has no shape, not even its number of dimensions; export it with one" in message


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_an_opset_newer_than_the_package_is_refused(tmp_path, domain):
    proto = models.identity()
    proto.opset_import[0].CopyFrom(helper.make_opsetid(domain, NEWEST_OPSET + 1))
    message = refused(models.save(proto, tmp_path / "model.onnx"))
    assert f"uses ONNX opset {NEWEST_OPSET + 1}; the newest that is known here is {NEWEST_OPSET}" in message
    assert f"Export it with opset {NEWEST_OPSET} or lower" in message


def test_the_newest_opset_and_other_domains_of_any_version_are_taken(tmp_path):
    proto = models.identity()
    proto.opset_import[0].version = NEWEST_OPSET
    proto.opset_import.append(helper.make_opsetid("com.example", 999))
    assert read(proto, tmp_path).opset == NEWEST_OPSET


def test_a_missing_file_is_refused(tmp_path):
    assert refused(tmp_path / "model.onnx") == f"{tmp_path}/model.onnx does not exist"


def test_a_folder_in_the_models_place_is_refused(tmp_path):
    assert refused(tmp_path) == f"{tmp_path} is a folder; wanted is an ONNX file"


def test_a_pipe_in_the_models_place_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.onnx")
    assert "cannot be read: it is not a regular file" in refused(tmp_path / "model.onnx")


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be read: Not a directory" in refused(tmp_path / "file" / "model.onnx")


@AS_ROOT
def test_an_unreadable_file_is_refused(tmp_path):
    path = models.save(models.identity(), tmp_path / "model.onnx")
    path.chmod(0)
    assert "cannot be read: Permission denied; check its permissions" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"not a model\n",
        b'{"model": 1}',
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        b"PK\x03\x04" + bytes(60),
        b"\x89PNG\r\n\x1a\n" + bytes(60),
        b"\x1f\x8b\x08" + bytes(60),
        bytes(100),
        b"\xff" * 100,
        b"\x08\x08",
    ],
    ids=["text", "json", "git lfs pointer", "zip", "png", "gzip", "zeros", "ones", "only a version"],
)
def test_other_files_are_refused_with_their_size(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    message = refused(path)
    assert f"({len(content)} bytes) is not a" in message
    assert "export or copy it again" in message


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.touch()
    assert "(0 bytes) is not a whole ONNX model" in refused(path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    data = models.add().SerializeToString()
    path = tmp_path / "model.onnx"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert f"({size} bytes) is not a" in refused(path)


def test_a_graph_without_outputs_is_refused(tmp_path):
    proto = models.identity()
    del proto.graph.output[:]
    assert "no operator set or no outputs" in refused(models.save(proto, tmp_path / "model.onnx"))


def test_an_input_with_a_default_in_the_graph_is_a_weight(tmp_path):
    proto = models.scale(2.0)
    proto.graph.input.append(models.tensor("factor", []))
    assert [spec.name for spec in read(proto, tmp_path).signature.inputs] == ["x"]


# ---- digest ----


@pytest.fixture
def with_data(tmp_path):
    """A model of one file with its weights in two others."""
    proto = models.linear()
    for name in ("b", "a"):
        extra = proto.graph.initializer.add()
        extra.CopyFrom(proto.graph.initializer[0])
        extra.name = name
        (tmp_path / f"{name}.bin").write_bytes(extra.raw_data)
        extra.ClearField("raw_data")
        extra.data_location = TensorProto.EXTERNAL
        extra.external_data.add(key="location", value=f"{name}.bin")
    return read(proto, tmp_path)


def test_digest_is_a_sha256(with_data):
    assert len(bytes.fromhex(with_data.digest())) == 32


def test_digest_changes_with_every_byte_of_every_file(with_data):
    digests = {with_data.digest()}
    assert with_data.file_sha256 == hashlib.sha256(with_data.path.read_bytes()).hexdigest()
    digests.add(replace(with_data, file_sha256="0" * 64).digest())
    assert len(with_data.external_files) == 2
    count = 1
    for path in with_data.external_files:
        data = path.read_bytes()
        for position in range(0, len(data), 41):
            path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            digests.add(with_data.digest())
            count += 1
        path.write_bytes(data)
    assert len(digests) == count + 1


def test_digest_does_not_change_with_the_path(with_data, tmp_path):
    other = shutil.copytree(tmp_path, tmp_path / "other" / "folder", ignore=shutil.ignore_patterns("other"))
    assert read_onnx_model(other / "model.onnx").digest() == with_data.digest()


def test_digest_does_not_change_with_the_name_of_the_model(with_data, tmp_path):
    renamed = with_data.path.rename(tmp_path / "renamed.onnx")
    assert read_onnx_model(renamed).digest() == with_data.digest()


def test_the_file_is_opened_once_and_external_data_for_the_digest_alone(with_data):
    opened = []

    def watch(event, arguments):
        if event == "open" and watching:
            opened.append(arguments[0])

    watching = True
    sys.addaudithook(watch)  # it cannot be taken away again
    model = read_onnx_model(with_data.path)
    assert opened == [str(with_data.path)]
    model.digest()
    watching = False
    assert opened == [str(path) for path in (model.path, *model.external_files)]


def test_digest_changes_when_a_boundary_between_files_moves(with_data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    digests = set()
    for cut in range(1, 4):
        one.write_bytes(b"abcd"[:cut])
        two.write_bytes(b"abcd"[cut:])
        digests.add(replace(with_data, path=one, external_files=(two,)).digest())
    assert len(digests) == 3


def test_digest_changes_when_two_files_swap_their_content(with_data):
    before = with_data.digest()
    first, second = with_data.external_files
    first.write_bytes(b"\1" + first.read_bytes()[1:])
    changed = with_data.digest()
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    assert len({before, changed, with_data.digest()}) == 3


def test_external_files_are_listed_in_order_and_resolved(with_data, tmp_path):
    assert with_data.external_files == (tmp_path / "a.bin", tmp_path / "b.bin")


def test_a_model_may_be_named_by_a_relative_path(tmp_path, monkeypatch):
    models.save_with_external_data(models.linear(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    assert read_onnx_model(Path("model.onnx")).external_files == (tmp_path / "weights.bin",)
