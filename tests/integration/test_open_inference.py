"""The Open Inference Protocol and Triton's additions to it: what each call answers when it is asked rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import TensorProto, helper

from tests.models import make_models
from tests.support.oip_client import Client, arrays_of, infer_request, texts
from tests.support.running_server import RunningServer
from trtserve_protos import dtypes, oip
from trtserve_protos.oip import ModelInferRequest
from trtserve_server import __version__

X = np.array([[1, 2, 3, 4]], np.float32)
DATATYPES = [datatype.name for datatype in dtypes.TABLE]
WITH_CONTENTS = [name for name in DATATYPES if name not in ("FP16", "BF16")]


def of_datatype(name: str) -> np.ndarray:
    """Two rows with the extremes of the datatype."""
    dtype = dtypes.from_name(name).numpy
    if name == "BYTES":
        array = np.empty((2, 3), object)
        array[:] = [[b"", "grün".encode(), b"a\0b"], [b"x" * 300, b" ", b"\n"]]
        return array
    if name == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, 0, 1], [limits.max, 2, 3]], dtype)
    return np.array([[-1.5, 0.0, np.inf], [1e4, -np.inf, 2.0**-9]], np.float32).astype(dtype)


def two_outputs() -> onnx.ModelProto:
    """two_x = 2 x and three_x = 3 x."""
    nodes = [helper.make_node("Mul", ["x", factor], [factor + "_x"]) for factor in ("two", "three")]
    outputs = [make_models.tensor(name, ["batch", 4]) for name in ("two_x", "three_x")]
    weights = {"two": np.array(2, np.float32), "three": np.array(3, np.float32)}
    return make_models.model(nodes, [make_models.tensor("x", ["batch", 4])], outputs, weights)


def to_half() -> onnx.ModelProto:
    """From FP32, which has typed contents, to FP16, which has none."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)
    output = make_models.tensor("y", ["batch", 4], TensorProto.FLOAT16)
    return make_models.model([node], [make_models.tensor("x", ["batch", 4])], [output])


def mixed_outputs() -> onnx.ModelProto:
    """An output of unknown shape between two of known shape."""
    nodes = [helper.make_node(kind, ["x"], [name]) for kind, name in (("Neg", "a"), ("NonZero", "b"), ("Abs", "c"))]
    outputs = [
        make_models.tensor("a", [3]),
        make_models.tensor("b", [1, "n"], TensorProto.INT64),
        make_models.tensor("c", [3]),
    ]
    return make_models.model(nodes, [make_models.tensor("x", [3])], outputs)


def no_inputs() -> onnx.ModelProto:
    """y = [1, 2, 3]."""
    node = helper.make_node("Constant", [], ["y"], value_floats=[1.0, 2.0, 3.0])
    return make_models.model([node], [], [make_models.tensor("y", [3])])


def scalar() -> onnx.ModelProto:
    """y = x, without any dimension."""
    return make_models.identity(TensorProto.FLOAT, ())


MODELS = {
    "double": make_models.scale(2.0),
    "add": make_models.add(),
    "two_outputs": two_outputs(),
    "to_half": to_half(),
    "mixes_rows": make_models.mixes_rows(),
    "nonzero": make_models.nonzero(),
    "mixed_outputs": mixed_outputs(),
    "no_inputs": no_inputs(),
    "scalar": scalar(),
    "empty": make_models.identity(),
} | {f"identity_{datatype.name}": make_models.identity(datatype.onnx) for datatype in dtypes.TABLE}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("repository")
    for name, proto in MODELS.items():
        make_models.save(proto, folder / name / "1" / "model.onnx")
    colours = folder / "colours"
    make_models.save(make_models.identity(), colours / "1" / "model.onnx")
    (colours / "model.toml").write_text('outputs = [{ name = "y", label_filename = "labels.txt" }]\ninstances = 2\n')
    (colours / "labels.txt").write_text("red\ngreen\nblue\n")
    running = RunningServer(model_repository=(str(folder),))
    made = Client(running.url)
    yield made
    made.close()
    running.stop()


# ---- The server and its models


def test_the_server_is_live_and_ready(client: Client) -> None:
    assert client.call("ServerLive").live
    assert client.call("ServerReady").ready


def test_the_server_names_itself_its_version_and_its_extensions(client: Client) -> None:
    metadata = client.call("ServerMetadata")
    assert (metadata.name, metadata.version) == ("trtserve", __version__)
    assert {"binary_tensor_data", "classification", "model_configuration", "statistics"} <= set(metadata.extensions)


@pytest.mark.parametrize("version", ["", "1"])
def test_a_model_is_ready(client: Client, version: str) -> None:
    assert client.call("ModelReady", name="double", version=version).ready


def test_metadata_has_names_datatypes_and_shapes_with_the_batch_dimension(client: Client) -> None:
    metadata = client.call("ModelMetadata", name="add")
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("add", ["1"], "onnxruntime_onnx")
    tensors = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in (*metadata.inputs, *metadata.outputs)]
    assert tensors == [("a", "FP32", [-1, 4]), ("b", "FP32", [-1, 4]), ("total", "FP32", [-1, 4])]


@pytest.mark.parametrize("name", DATATYPES)
def test_metadata_has_every_datatype(client: Client, name: str) -> None:
    metadata = client.call("ModelMetadata", name=f"identity_{name}")
    assert (metadata.inputs[0].datatype, metadata.outputs[0].datatype) == (name, name)


def test_metadata_says_how_a_model_is_served(client: Client) -> None:
    parameters = client.call("ModelMetadata", name="colours").parameters
    assert parameters["backend"].string_param == "onnxruntime"
    assert parameters["device"].string_param == "cpu"
    assert parameters["instances"].int64_param == 2
    assert parameters["max_batch_size"].int64_param == 32
    assert "one by one and together" in parameters["batching_reason"].string_param


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mixes_rows", "a row of output 'y' changes with the rows beside it"),
        ("nonzero", "first dimension of 'indices' is fixed"),
        ("scalar", "first dimension of 'x', 'y' is fixed"),
    ],
)
def test_metadata_says_why_a_model_is_not_batched(client: Client, name: str, reason: str) -> None:
    parameters = client.call("ModelMetadata", name=name).parameters
    assert parameters["max_batch_size"].int64_param == 0
    assert reason in parameters["batching_reason"].string_param


def test_the_configuration_is_the_effective_one(client: Client) -> None:
    config = client.call("ModelConfig", name="colours").config
    assert (config.name, config.backend, config.max_batch_size) == ("colours", "onnxruntime", 32)
    assert config.default_model_filename == "model.onnx"
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.input] == [("x", 11, [-1])]
    assert [(tensor.name, tensor.label_filename) for tensor in config.output] == [("y", "labels.txt")]
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, 2)]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 10_000
    assert "one by one" in config.parameters["batching_reason"].string_value


def test_the_configuration_of_an_unbatched_model_has_all_its_dimensions(client: Client) -> None:
    config = client.call("ModelConfig", name="nonzero").config
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[-1], [1, -1]]


def test_the_index_lists_every_model(client: Client) -> None:
    index = client.call("RepositoryIndex").models
    assert [(model.name, model.version, model.state, model.reason) for model in index] == [
        (name, "1", "READY", "") for name in sorted([*MODELS, "colours"])
    ]
    assert client.call("RepositoryIndex", ready=True).models == index


# ---- Tensors


@pytest.mark.parametrize("name", DATATYPES)
def test_raw_tensors_of_every_datatype_come_back(client: Client, name: str) -> None:
    array = of_datatype(name)
    response = client.call("ModelInfer", infer_request(f"identity_{name}", {"x": array}))
    assert not response.outputs[0].HasField("contents")
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == (name, [2, 3])
    assert_same(arrays_of(response)["y"], array)


@pytest.mark.parametrize("name", WITH_CONTENTS)
def test_contents_of_every_datatype_that_has_them_come_back_as_contents(client: Client, name: str) -> None:
    array = of_datatype(name)
    response = client.call("ModelInfer", infer_request(f"identity_{name}", {"x": array}, raw=False))
    assert not response.raw_output_contents
    assert [field.name for field, _ in response.outputs[0].contents.ListFields()] == [
        dtypes.from_name(name).contents_field
    ]
    assert_same(arrays_of(response)["y"], array)


def assert_same(got: np.ndarray, wanted: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert got.tolist() == wanted.tolist()


def test_an_output_without_typed_contents_is_raw_whatever_the_request_was(client: Client) -> None:
    response = client.call("ModelInfer", infer_request("to_half", {"x": X}, raw=False))
    assert len(response.raw_output_contents) == 1
    assert_same(arrays_of(response)["y"], X.astype(np.float16))


def test_inputs_are_taken_in_any_order(client: Client) -> None:
    for names in (("a", "b"), ("b", "a")):
        inputs = {name: X if name == "a" else 10 * X for name in names}
        np.testing.assert_array_equal(client.infer(infer_request("add", inputs))["total"], 11 * X)


@pytest.mark.parametrize("raw", [True, False])
def test_tensors_without_elements_come_back(client: Client, raw: bool) -> None:
    empty = np.zeros((2, 0), np.float32)
    response = client.call("ModelInfer", infer_request("empty", {"x": empty}, raw=raw))
    assert len(response.raw_output_contents) == raw
    assert_same(arrays_of(response)["y"], empty)


@pytest.mark.parametrize("raw", [True, False])
def test_an_output_that_the_data_makes_empty_has_its_shape(client: Client, raw: bool) -> None:
    response = client.call("ModelInfer", infer_request("nonzero", {"x": np.zeros(3, np.float32)}, raw=raw))
    assert list(response.outputs[0].shape) == [1, 0]


def test_the_shape_of_an_output_may_depend_on_the_data(client: Client) -> None:
    for data in ([1, 0, 1], [0, 0, 1], [0, 1, 1, 1]):
        answer = client.infer(infer_request("nonzero", {"x": np.array(data, np.float32)}))
        assert answer["indices"].tolist() == [np.flatnonzero(data).tolist()]


def test_outputs_of_known_and_of_unknown_shape_keep_apart(client: Client) -> None:
    for data in ([1, 0, -2], [0, 0, 3], [-1, 4, 5]):
        answer = client.infer(infer_request("mixed_outputs", {"x": np.array(data, np.float32)}))
        assert answer["a"].tolist() == [-number for number in data]
        assert answer["b"].tolist() == [np.flatnonzero(data).tolist()]
        assert answer["c"].tolist() == [abs(number) for number in data]


@pytest.mark.parametrize("raw", [True, False])
def test_a_scalar_comes_back(client: Client, raw: bool) -> None:
    assert_same(
        client.infer(infer_request("scalar", {"x": np.array(7, np.float32)}, raw=raw))["y"], np.array(7, np.float32)
    )


def test_a_model_without_inputs_answers(client: Client) -> None:
    assert client.infer(infer_request("no_inputs", {}))["y"].tolist() == [1, 2, 3]


def test_the_largest_batch_comes_back_row_by_row(client: Client) -> None:
    rows = np.arange(128, dtype=np.float32).reshape(32, 4)
    np.testing.assert_array_equal(client.infer(infer_request("double", {"x": rows}))["y"], 2 * rows)


def test_a_tensor_of_64_mib_comes_back(client: Client) -> None:
    large = np.arange(2**24, dtype=np.float32).reshape(1, -1)
    assert np.array_equal(client.infer(infer_request("identity_FP32", {"x": large}))["y"], large)


def test_more_shapes_than_the_server_remembers_come_back(client: Client) -> None:
    widths = [*range(1, 1200), *range(1, 1200)]

    def requests() -> Iterator[ModelInferRequest]:
        for number, width in enumerate(widths):
            yield infer_request("empty", {"x": np.full((1, width), number, np.float32)}, id=str(number))

    count = 0
    for answer in client.stream(requests()):
        number = int(answer.infer_response.id)
        array = arrays_of(answer.infer_response)["y"]
        assert array.shape == (1, widths[number])
        assert (array == number).all()
        count += 1
    assert count == len(widths)


def test_a_compressed_request_is_answered(client: Client) -> None:
    call = client.channel.unary_unary(oip.METHODS["ModelInfer"].path)
    data = infer_request("double", {"x": X}).SerializeToString()
    answer = oip.ModelInferResponse.FromString(call(data, timeout=20, compression=grpc.Compression.Gzip))
    np.testing.assert_array_equal(arrays_of(answer)["y"], 2 * X)


# ---- What the response says


@pytest.mark.parametrize("request_id", ["", "42", "grün", "x" * 1000])
@pytest.mark.parametrize("raw", [True, False])
def test_the_response_has_the_requests_id_and_the_models_name_and_version(
    client: Client, request_id: str, raw: bool
) -> None:
    response = client.call("ModelInfer", infer_request("double", {"x": X}, id=request_id, raw=raw))
    assert (response.model_name, response.model_version, response.id) == ("double", "1", request_id)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "outputs",
    [["two_x"], ["three_x"], ["two_x", "three_x"], ["three_x", "two_x"], []],
    ids=",".join,
)
def test_requested_outputs_come_in_the_requested_order(client: Client, outputs: list[str], raw: bool) -> None:
    response = client.call("ModelInfer", infer_request("two_outputs", {"x": X}, outputs=outputs, raw=raw))
    assert [output.name for output in response.outputs] == (outputs or ["two_x", "three_x"])
    for name, array in arrays_of(response).items():
        np.testing.assert_array_equal(array, (2 if name == "two_x" else 3) * X)


def test_fields_that_are_not_of_the_protocol_are_ignored(client: Client) -> None:
    field_1000 = b"\xc2\x3e\x03abc"
    message = infer_request("double", {"x": X}).SerializeToString() + field_1000
    np.testing.assert_array_equal(client.infer(message)["y"], 2 * X)


@pytest.mark.parametrize("parameters", [{"sequence_id": 0}, {"sequence_id": ""}, {"sequence_start": False}])
def test_parameters_that_say_no_sequence_are_taken(client: Client, parameters: dict) -> None:
    np.testing.assert_array_equal(client.infer(infer_request("double", {"x": X}, parameters=parameters))["y"], 2 * X)


@pytest.mark.parametrize(
    "parameters",
    [
        {"priority": 1},
        {"priority": "5"},
        {"priority": 2**63 - 1},
        {"timeout": 10_000_000},
        {"timeout": "10000000"},
        {"timeout": 0},
        {"timeout": 2**63 - 1},
        {"headers": "x"},
        {"made_up": 1.5},
    ],
    ids=str,
)
def test_parameters_of_the_request_are_taken(client: Client, parameters: dict) -> None:
    np.testing.assert_array_equal(client.infer(infer_request("double", {"x": X}, parameters=parameters))["y"], 2 * X)


# ---- Classification


def classified(client: Client, scores: np.ndarray, classes: int, model: str = "colours", *, raw: bool = True) -> list:
    message = infer_request(model, {"x": scores}, outputs=["y"], raw=raw)
    message.outputs[0].parameters["classification"].int64_param = classes
    response = client.call("ModelInfer", message)
    assert response.outputs[0].datatype == "BYTES"
    assert list(response.outputs[0].shape) == list(arrays_of(response)["y"].shape)
    return arrays_of(response)["y"].tolist()


SCORES = np.array([[0.25, 0.5, -1], [3, 1, 2]], np.float32)


@pytest.mark.parametrize("raw", [True, False])
def test_classification_gives_value_index_and_label_of_the_largest(client: Client, raw: bool) -> None:
    assert classified(client, SCORES, 2, raw=raw) == [
        [b"0.500000:1:green", b"0.250000:0:red"],
        [b"3.000000:0:red", b"2.000000:2:blue"],
    ]


def test_classification_gives_no_more_classes_than_there_are(client: Client) -> None:
    assert [len(row) for row in classified(client, SCORES, 2**40)] == [3, 3]


def test_classification_leaves_out_labels_that_the_file_does_not_have(client: Client) -> None:
    assert classified(client, np.array([[0, 0, 0, 9]], np.float32), 1) == [[b"9.000000:3"]]


def test_classification_leaves_out_labels_where_there_is_no_file(client: Client) -> None:
    assert classified(client, SCORES, 1, "identity_FP32") == [[b"0.500000:1"], [b"3.000000:0"]]


@pytest.mark.parametrize("name", ["INT8", "UINT64", "FP16", "BF16", "FP64"])
def test_classification_takes_every_kind_of_number(client: Client, name: str) -> None:
    scores = np.array([[1, 3, 2]]).astype(dtypes.from_name(name).numpy)
    (row,) = classified(client, scores, 3, f"identity_{name}")
    assert [int(text.split(b":")[1]) for text in row] == [1, 2, 0]


# ---- Statistics


def test_statistics_count_rows_batches_and_phases(client: Client) -> None:
    before = client.statistics("identity_UINT8")
    for rows in (1, 3, 3):
        client.infer(infer_request("identity_UINT8", {"x": np.zeros((rows, 2), np.uint8)}))
    after = client.statistics("identity_UINT8")
    assert after.inference_count - before.inference_count == 7
    assert after.execution_count - before.execution_count == 3
    assert after.last_inference >= before.last_inference
    assert after.last_inference > 1_700_000_000_000  # milliseconds since 1970
    assert sum(stats.batch_size * stats.compute_infer.count for stats in after.batch_stats) == after.inference_count
    assert sum(stats.compute_infer.count for stats in after.batch_stats) == after.execution_count
    stats = after.inference_stats
    phases = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert {phase.count for phase in phases} == {stats.success.count}
    assert 0 < sum(phase.ns for phase in phases) <= stats.success.ns


def test_statistics_count_what_the_model_failed_on(
    serve: Callable[..., RunningServer], connect: Callable[..., Client], tmp_path: Path
) -> None:
    file = make_models.save(make_models.gather(), tmp_path / "gather.onnx")
    client = connect(serve(model=(str(file),)))
    client.infer(infer_request("gather", {"index": np.array([3])}))
    client.error("ModelInfer", infer_request("gather", {"index": np.array([99])}))
    stats = client.statistics("gather").inference_stats
    assert (stats.success.count, stats.fail.count) == (1, 1)


def test_statistics_are_for_every_model_where_none_is_named(client: Client) -> None:
    stats = client.call("ModelStatistics").model_stats
    assert sorted(model.name for model in stats) == sorted([*MODELS, "colours"])


def test_statistics_have_the_batch_sizes_in_order(client: Client) -> None:
    for rows in (5, 2, 9):
        client.infer(infer_request("identity_INT16", {"x": np.zeros((rows, 1), np.int16)}))
    assert [stats.batch_size for stats in client.statistics("identity_INT16").batch_stats] == [2, 5, 9]


# ---- The wire form itself


def test_the_response_is_what_protobuf_itself_would_write(client: Client) -> None:
    """Apart from the order of its fields, which is free."""
    method = oip.METHODS["ModelInfer"]
    request = infer_request("two_outputs", {"x": X}, id="7").SerializeToString()
    data = client.channel.unary_unary(method.path)(request, timeout=20)
    message = oip.ModelInferResponse.FromString(data)
    assert len(message.SerializeToString()) == len(data)
    assert not len(UnknownFieldSet(message))


def test_strings_keep_their_bytes_in_raw_and_in_typed_form(client: Client) -> None:
    words = texts(b"", b"\0", "π".encode(), b"long" * 10_000)
    for raw in (True, False):
        assert client.infer(infer_request("identity_BYTES", {"x": words}, raw=raw))["y"].tolist() == words.tolist()


def test_a_call_ends_with_ok(client: Client) -> None:
    future = client.future(infer_request("double", {"x": X}))
    future.result()
    assert future.code() is grpc.StatusCode.OK
