"""External data of a model: only files below its folder are ever opened, wherever in the model they are named."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.models import make_models as models
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.errors import ModelFileError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.open_engine import open_engine

WEIGHTS = np.arange(4, dtype=np.float32)


def external(location, name="w"):
    """A tensor of four floats that is said to stand in the file `location`."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def weighted(*tensors):
    """total = x + w, with these initializers."""
    proto = models.model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [models.tensor("x", ["batch", 4])],
        [models.tensor("y", ["batch", 4])],
    )
    proto.graph.initializer.extend(tensors)
    return proto


def constant(tensor):
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(tensor):
    return helper.make_graph([constant(tensor)], "branch", [], [models.tensor("c", [4])])


def with_nodes(*nodes):
    proto = models.identity()
    proto.graph.node.extend(nodes)
    return proto


def in_subgraph(tensor):
    return with_nodes(helper.make_node("If", ["x"], ["i"], then_branch=branch(tensor), else_branch=branch(tensor)))


def in_initializer_of_a_subgraph(tensor):
    graph = branch(TensorProto(data_type=TensorProto.FLOAT, dims=[0]))
    graph.initializer.append(tensor)
    return with_nodes(helper.make_node("If", ["x"], ["i"], then_branch=graph, else_branch=graph))


def in_nested_subgraph(tensor):
    outer = helper.make_graph(
        [helper.make_node("If", ["x"], ["i"], then_branch=branch(tensor), else_branch=branch(tensor))],
        "outer",
        [],
        [models.tensor("i", [4])],
    )
    return with_nodes(helper.make_node("If", ["x"], ["j"], then_branch=outer, else_branch=outer))


def in_list_of_subgraphs(tensor):
    node = helper.make_node("Custom", ["x"], ["i"], domain="com.example")
    node.attribute.add(name="graphs").graphs.append(branch(tensor))
    return with_nodes(node)


def in_list_of_tensors(tensor):
    node = helper.make_node("Custom", ["x"], ["i"], domain="com.example")
    node.attribute.add(name="tensors").tensors.append(tensor)
    return with_nodes(node)


def sparse(tensor, part):
    indices = helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3])
    return helper.make_sparse_tensor(*((tensor, indices) if part == "values" else (indices, tensor)), [8])


def in_sparse_initializer(part):
    def make(tensor):
        proto = models.identity()
        proto.graph.sparse_initializer.append(sparse(tensor, part))
        return proto

    return make


def in_sparse_attribute(part):
    def make(tensor):
        node = helper.make_node("Constant", [], ["c"])
        node.attribute.add(name="sparse_value").sparse_tensor.CopyFrom(sparse(tensor, part))
        return with_nodes(node)

    return make


def in_list_of_sparse_tensors(tensor):
    node = helper.make_node("Custom", ["x"], ["i"], domain="com.example")
    node.attribute.add(name="sparse_tensors").sparse_tensors.append(sparse(tensor, "values"))
    return with_nodes(node)


def function():
    return helper.make_function(
        "com.example", "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )


def in_function(tensor):
    proto = models.identity()
    proto.functions.append(function())
    proto.functions[0].node.append(constant(tensor))
    return proto


def in_default_of_a_functions_attribute(tensor):
    proto = models.identity()
    proto.functions.append(function())
    proto.functions[0].attribute_proto.add(name="a").t.CopyFrom(tensor)
    return proto


def in_training(part):
    def make(tensor):
        proto = models.identity()
        getattr(proto.training_info.add(), part).initializer.append(tensor)
        return proto

    return make


PLACES = {
    "initializer": weighted,
    "attribute": lambda tensor: with_nodes(constant(tensor)),
    "list of tensors": in_list_of_tensors,
    "subgraph": in_subgraph,
    "initializer of a subgraph": in_initializer_of_a_subgraph,
    "nested subgraph": in_nested_subgraph,
    "list of subgraphs": in_list_of_subgraphs,
    "sparse initializer, values": in_sparse_initializer("values"),
    "sparse initializer, indices": in_sparse_initializer("indices"),
    "sparse attribute, values": in_sparse_attribute("values"),
    "sparse attribute, indices": in_sparse_attribute("indices"),
    "list of sparse tensors": in_list_of_sparse_tensors,
    "function": in_function,
    "default of a function's attribute": in_default_of_a_functions_attribute,
    "training, initialization": in_training("initialization"),
    "training, algorithm": in_training("algorithm"),
}
everywhere = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


@pytest.fixture
def folder(tmp_path):
    """The model's folder, beside a file that is none of its business."""
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def read(proto, folder):
    return read_onnx_model(models.save(proto, folder / "model.onnx"))


def refused(proto, folder):
    with pytest.raises(ModelFileError) as caught:
        read(proto, folder)
    assert str(folder / "model.onnx") in str(caught.value)
    return str(caught.value)


@everywhere
def test_data_beside_the_model_is_found(folder, place):
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert read(place(external("w.bin")), folder).external_files == (folder / "w.bin",)


@everywhere
def test_data_outside_the_folder_is_refused(folder, place):
    message = refused(place(external("../secret.bin")), folder)
    assert f"names external data '../secret.bin', which lies outside its folder {folder}; it was not opened" in message


@pytest.mark.parametrize("location", ["../secret.bin", "sub/../../secret.bin", "../model2/w.bin", "", ".."])
def test_no_path_leads_out_of_the_folder(folder, location):
    assert "outside its folder" in refused(weighted(external(location)), folder)


def test_absolute_paths_are_refused_even_into_the_folder(folder):
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert "outside its folder" in refused(weighted(external(str(folder / "w.bin"))), folder)
    assert "outside its folder" in refused(weighted(external("/etc/passwd")), folder)


def test_links_out_of_the_folder_are_refused(folder):
    (folder / "w.bin").symlink_to(folder.parent / "secret.bin")
    assert "outside its folder" in refused(weighted(external("w.bin")), folder)


def test_folders_that_are_links_out_of_the_folder_are_refused(folder):
    (folder / "sub").symlink_to(folder.parent)
    assert "outside its folder" in refused(weighted(external("sub/secret.bin")), folder)


def test_folders_with_the_same_beginning_are_other_folders(folder):
    other = folder.with_name("model2")
    other.mkdir()
    (other / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert "outside its folder" in refused(weighted(external("../model2/w.bin")), folder)


def test_links_within_the_folder_are_followed(folder):
    (folder / "data.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "w.bin").symlink_to(folder / "data.bin")
    assert read(weighted(external("w.bin")), folder).external_files == (folder / "data.bin",)


def test_subfolders_are_taken(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert read(weighted(external("sub/w.bin")), folder).external_files == (folder / "sub" / "w.bin",)


@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "."])
def test_missing_data_is_refused_with_its_name(folder, location):
    message = refused(weighted(external(location)), folder)
    assert f"needs its external data '{location}', which is not in {folder}; copy it there" in message


@pytest.mark.parametrize("location", ["a\0b", "x" * 300, "x" * 5000])
def test_names_that_no_file_can_have_are_refused(folder, location):
    assert "names external data" in refused(weighted(external(location)), folder)


def test_a_tensor_without_a_location_is_refused(folder):
    tensor = external("w.bin")
    del tensor.external_data[:]
    assert "names external data ''" in refused(weighted(tensor), folder)


def test_tensors_in_one_file_name_it_once(folder):
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    model = read(weighted(external("w.bin"), external("w.bin", "v")), folder)
    assert model.external_files == (folder / "w.bin",)


def test_a_model_runs_with_its_external_data(folder):
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    model = read(weighted(external("w.bin")), folder)
    engine = open_engine(model, backend="onnxruntime", device="cpu", onnxruntime=OnnxRuntimeOptions())
    context = engine.create_context(batched=True)
    result = context.run([{"x": np.ones((1, 4), np.float32)}])
    context.close()
    engine.close()
    assert result.outputs["y"].tolist() == [[1, 2, 3, 4]]
