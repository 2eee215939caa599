"""A client's mistake gets a status and a text that names the field, what was given and what was wanted.

Every case is sent three ways: as a unary call, on a stream, and on a stream that wants errors as its status. After
each, the server answers the next good request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from tests.models import make_models
from tests.support.oip_client import Client, arrays_of, infer_request, texts
from tests.support.running_server import RunningServer
from trtserve_protos import health, oip
from trtserve_protos.oip import ModelInferRequest

INTERNAL = grpc.StatusCode.INTERNAL
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

X = np.array([[1, 2, 3, 4]], np.float32)
HUGE = 2**40

MODELS = {
    "double": make_models.scale(2.0),
    "add": make_models.add(),
    "words": make_models.identity(TensorProto.STRING),
    "flags": make_models.identity(TensorProto.BOOL),
    "small": make_models.identity(TensorProto.INT8),
    "free": make_models.identity(),
    "unbatched": make_models.nonzero(),
    "gather": make_models.gather(),
    "filled": make_models.filled(),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("models")
    files = [str(make_models.save(proto, folder / f"{name}.onnx")) for name, proto in MODELS.items()]
    running = RunningServer(model=tuple(files), default_max_batch_size=32)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Client]:
    made = Client(server.url)
    yield made
    made.close()


def good(**fields: Any) -> ModelInferRequest:
    return infer_request("double", {"x": X}, **fields)


def assert_serves(client: Client) -> None:
    np.testing.assert_array_equal(client.infer(good())["y"], 2 * X)


class Case(NamedTuple):
    build: Callable[[], Any]
    code: grpc.StatusCode
    words: tuple[str, ...]


CASES: list[Any] = []


def case(code: grpc.StatusCode, *words: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Adds what the function builds to the cases, which answer with `code` and a text that has `words` in it."""

    def add(build: Callable[[], Any]) -> Callable[[], Any]:
        CASES.append(pytest.param(Case(build, code, words), id=build.__name__))
        return build

    return add


def with_shape(message: ModelInferRequest, *shape: int) -> ModelInferRequest:
    """The request with another shape for its first input, whose bytes stay."""
    message.inputs[0].shape[:] = shape
    return message


def with_parameter(value: Any, key: str = "timeout") -> ModelInferRequest:
    return good(parameters={key: value})


# ---- Models and versions


@case(NOT_FOUND, "'dubble'", "did you mean 'double'")
def unknown_model() -> Any:
    return infer_request("dubble", {"x": X})


@case(NOT_FOUND, "'double'", "no version '7'", "it has 1")
def unknown_version() -> Any:
    return good(model_version="7")


@case(NOT_FOUND, "'double'", "no version 'newest'", "it has 1")
def version_that_is_no_number() -> Any:
    return good(model_version="newest")


@case(NOT_FOUND, "no model name given", "double")
def empty_request() -> Any:
    return b""


# ---- Which inputs


@case(INVALID, "'add'", "'b' is missing", "given 'a'", "wanted 'a', 'b'")
def missing_input() -> Any:
    return infer_request("add", {"a": X})


@case(INVALID, "'double'", "'x' is missing", "given none")
def no_inputs() -> Any:
    return infer_request("double", {})


@case(INVALID, "'z' is not one of the model's", "'x'")
def unexpected_input() -> Any:
    return infer_request("double", {"x": X, "z": X})


@case(INVALID, "inputs[1]", "'x' is given twice")
def duplicated_input() -> Any:
    message = good()
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])
    return message


@case(INVALID, "'x' is missing", "given ''")
def input_without_a_name() -> Any:
    return infer_request("double", {"": X})


# ---- Datatype and shape


@case(INVALID, "'x'", "FP64 given", "FP32 wanted")
def wrong_datatype() -> Any:
    return infer_request("double", {"x": X.astype(np.float64)})


@case(INVALID, "'x'", "'float32' is unknown", "FP32")
def unknown_datatype() -> Any:
    message = good()
    message.inputs[0].datatype = "float32"
    return message


@case(INVALID, "'x'", "'' is unknown", "FP32")
def no_datatype() -> Any:
    message = good()
    message.inputs[0].datatype = ""
    return message


@case(INVALID, "'x'", "[1, 1, 4] given", "[-1, 4] wanted", "1 for a single row")
def wrong_rank() -> Any:
    return infer_request("double", {"x": X[:1, None]})


@case(INVALID, "'x'", "[] given", "[-1, 4] wanted")
def no_shape() -> Any:
    return infer_request("double", {"x": np.array(1, np.float32)})


@case(INVALID, "'x'", "[1, 5] given", "[-1, 4] wanted")
def wrong_dimension() -> Any:
    return infer_request("double", {"x": np.zeros((1, 5), np.float32)})


@case(INVALID, "33 rows given", "1 to 32 wanted", "max_batch_size")
def more_rows_than_a_batch_may_have() -> Any:
    return infer_request("double", {"x": np.zeros((33, 4), np.float32)})


@case(INVALID, "0 rows given", "1 to 32 wanted")
def no_rows() -> Any:
    return infer_request("double", {"x": np.zeros((0, 4), np.float32)})


@case(INVALID, "'a': 1", "'b': 2", "equal")
def inputs_with_different_numbers_of_rows() -> Any:
    return infer_request("add", {"a": X, "b": np.zeros((2, 4), np.float32)})


@case(INVALID, "'x'", "[-1, 4]", "negative")
def negative_dimension() -> Any:
    return with_shape(good(), -1, 4)


@case(INVALID, "'x'", "[-4, -1]", "negative")
def negative_dimensions_whose_product_fits() -> Any:
    return with_shape(good(), -4, -1)


@case(INVALID, "'x'", "16 bytes given", f"{4 * 4 * HUGE} wanted", f"[{HUGE}, 4]")
def huge_dimension() -> Any:
    return with_shape(good(), HUGE, 4)


@case(INVALID, "'x'", "16 bytes given", str(2**63 - 1))
def dimensions_whose_product_needs_more_than_64_bits() -> Any:
    return with_shape(good(), 2**63 - 1, 2**63 - 1)


@case(INVALID, "'x'", "5 bytes given", f"{HUGE} BYTES elements")
def huge_dimension_of_strings() -> Any:
    return with_shape(infer_request("words", {"x": texts(b"a")}), 1, HUGE)


@case(INVALID, "'x'", "4 elements", "fp32_contents", f"{4 * HUGE} wanted")
def huge_dimension_of_contents() -> Any:
    return with_shape(good(raw=False), HUGE, 4)


@case(INVALID, f"{HUGE} rows given", "1 to 32 wanted")
def huge_dimension_of_nothing() -> Any:
    return with_shape(infer_request("free", {"x": np.zeros((1, 0), np.float32)}), HUGE, 0)


@case(INVALID, "'x'", f"[{2**62}, 4, 0]")
def dimensions_of_nothing_that_no_array_can_have() -> Any:
    return with_shape(infer_request("free", {"x": np.zeros((1, 0), np.float32)}), 2**62, 4, 0)


@case(INVALID, "'x'", "64", "65")
def more_dimensions_than_an_array_can_have() -> Any:
    return with_shape(infer_request("free", {"x": np.zeros((1, 1), np.float32)}), *[1] * 65)


# ---- Raw tensors and contents


@case(INVALID, "'x'", "15 bytes given", "16 wanted", "FP32", "[1, 4]")
def raw_too_short() -> Any:
    message = good()
    message.raw_input_contents[0] = message.raw_input_contents[0][:-1]
    return message


@case(INVALID, "'x'", "17 bytes given", "16 wanted")
def raw_too_long() -> Any:
    message = good()
    message.raw_input_contents[0] += b"\0"
    return message


@case(INVALID, "'x'", "0 bytes given", "16 wanted")
def raw_empty() -> Any:
    message = good()
    message.raw_input_contents[0] = b""
    return message


@case(INVALID, "raw_input_contents holds 2 entries for 1 inputs", "one per input")
def too_many_raw_entries() -> Any:
    message = good()
    message.raw_input_contents.append(b"")
    return message


@case(INVALID, "raw_input_contents holds 1 entries for 2 inputs", "one per input")
def too_few_raw_entries() -> Any:
    message = infer_request("add", {"a": X, "b": X})
    del message.raw_input_contents[1]
    return message


@case(INVALID, "'x'", "0 elements", "fp32_contents", "4 wanted")
def neither_raw_nor_contents() -> Any:
    message = good(parameters={"priority": 7})
    del message.raw_input_contents[:]
    return message


@case(INVALID, "'x'", "contents beside raw_input_contents", "one form")
def raw_and_contents() -> Any:
    message = good()
    message.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    return message


@case(INVALID, "'x'", "3 elements", "fp32_contents", "4 wanted")
def too_few_elements_in_contents() -> Any:
    return with_shape(infer_request("double", {"x": X[:, :3]}, raw=False), 1, 4)


@case(INVALID, "'x'", "int64_contents given", "fp32_contents wanted", "FP32")
def contents_in_the_field_of_another_datatype() -> Any:
    message = good()
    del message.raw_input_contents[:]
    message.inputs[0].contents.int64_contents.extend([1, 2, 3, 4])
    return message


@case(INVALID, "'x'", "FP16", "raw_input_contents")
def contents_of_a_datatype_that_travels_raw_only() -> Any:
    message = good(raw=False)
    message.inputs[0].datatype = "FP16"
    return message


@case(INVALID, "'x'", "outside the range of INT8")
def contents_outside_the_range_of_the_datatype() -> Any:
    message = infer_request("small", {"x": np.array([[300]], np.int32)}, raw=False)
    message.inputs[0].datatype = "INT8"
    return message


@case(INVALID, "'x'", "BOOL", "0 or 1")
def bool_that_is_2() -> Any:
    message = infer_request("flags", {"x": np.array([[True, False]])})
    message.raw_input_contents[0] = b"\1\2"
    return message


def words_in(raw: bytes) -> ModelInferRequest:
    message = infer_request("words", {"x": texts(b"one", b"two")})
    message.raw_input_contents[0] = raw
    return message


@case(INVALID, "'x'", "element 1 of 2", "length is cut off")
def bytes_whose_second_length_is_cut_off() -> Any:
    return words_in(b"\x04\0\0\0four\x01\0")


@case(INVALID, "'x'", "element 1 of 2", "5 bytes announced", "4 left")
def bytes_that_announce_more_than_there_is() -> Any:
    return words_in(b"\x01\0\0\0a\x05\0\0\0four")


@case(INVALID, "'x'", "4294967295 bytes announced")
def bytes_that_announce_all_that_they_can() -> Any:
    return words_in(b"\xff\xff\xff\xff\0\0\0\0")


@case(INVALID, "'x'", "1 bytes are left over", "2 BYTES elements")
def bytes_with_something_behind() -> Any:
    return words_in(b"\x01\0\0\0a\x01\0\0\0bc")


@case(INVALID, "'x'", "element 1", "UTF-8")
def string_that_is_not_utf8() -> Any:
    return infer_request("words", {"x": texts(b"good", b"\xff\xfe")})


@case(INVALID, "'x'", "element 0", "UTF-8")
def string_that_is_not_utf8_in_contents() -> Any:
    return infer_request("words", {"x": texts(b"\xff")}, raw=False)


# ---- Outputs


@case(INVALID, "outputs[0]", "no output 'z'", "'y'")
def unknown_output() -> Any:
    return good(outputs=["z"])


@case(INVALID, "outputs[1]", "'y' is asked for twice")
def output_asked_for_twice() -> Any:
    return good(outputs=["y", "y"])


def classified(model: str, inputs: Any, **parameter: Any) -> ModelInferRequest:
    message = infer_request(model, inputs, outputs=["y"])
    parameter_message = message.outputs[0].parameters["classification"]
    for field, value in parameter.items():
        setattr(parameter_message, field, value)
    return message


@case(INVALID, "outputs[0]", "classification = 0", "1 or more")
def classification_into_no_classes() -> Any:
    return classified("double", {"x": X}, int64_param=0)


@case(INVALID, "'classification' is 'many'", "whole number")
def classification_into_many_classes() -> Any:
    return classified("double", {"x": X}, string_param="many")


@case(INVALID, "output 'y'", "classification needs an output of numbers; this one is BYTES, ask for it as it is")
def classification_of_strings() -> Any:
    return classified("words", {"x": texts(b"a")}, int64_param=1)


# ---- Parameters


@case(INVALID, "'timeout' is 'soon'", "whole number")
def timeout_in_words() -> Any:
    return with_parameter("soon")


@case(INVALID, "'timeout' is -1", "0 or more")
def timeout_below_zero() -> Any:
    return with_parameter(-1)


@case(INVALID, "'timeout' is 0.5", "whole number")
def timeout_with_a_fraction() -> Any:
    return with_parameter(0.5)


@case(INVALID, "'timeout' is True", "whole number")
def timeout_that_is_true() -> Any:
    return with_parameter(True)


@case(INVALID, "'timeout' is None", "whole number")
def timeout_without_a_value() -> Any:
    message = good()
    message.parameters["timeout"].SetInParent()
    return message


@case(INVALID, "'timeout' is '999", "whole number", "at most")
def timeout_of_5000_digits() -> Any:
    return with_parameter("9" * 5000)


@case(INVALID, "'timeout' is '999", "whole number", "at most")
def timeout_beyond_all_floats() -> Any:
    return with_parameter("9" * 400)


@case(INVALID, "'priority' is 'high'", "whole number")
def priority_in_words() -> Any:
    return with_parameter("high", "priority")


@case(UNIMPLEMENTED, "'double'", "sequence")
def sequence_id() -> Any:
    return with_parameter(42, "sequence_id")


@case(UNIMPLEMENTED, "'double'", "sequence")
def sequence_id_in_words() -> Any:
    return with_parameter("session", "sequence_id")


@case(UNIMPLEMENTED, "'double'", "sequence")
def sequence_start() -> Any:
    return with_parameter(True, "sequence_start")


@case(UNIMPLEMENTED, "'double'", "sequence")
def sequence_end() -> Any:
    return with_parameter(True, "sequence_end")


@case(UNIMPLEMENTED, "inputs[0] 'x'", "shared memory is switched off", "send the tensor in the message")
def input_in_shared_memory() -> Any:
    message = good()
    del message.raw_input_contents[:]
    message.inputs[0].parameters["shared_memory_region"].string_param = "region"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 16
    return message


@case(UNIMPLEMENTED, "outputs[0] 'y'", "shared memory is switched off", "--allow-client-shared-memory")
def output_in_shared_memory() -> Any:
    message = good(outputs=["y"])
    message.outputs[0].parameters["shared_memory_region"].string_param = "region"
    return message


# ---- Bytes that are no message


@case(INVALID, "the message")
def garbage() -> Any:
    return b"\xff" * 64


@case(INVALID, "the message is cut off")
def message_cut_off() -> Any:
    return good().SerializeToString()[:-1]


@case(INVALID, "ModelInferRequest")
def model_name_that_is_not_utf8() -> Any:
    return good().SerializeToString().replace(b"double", b"doubl\xff")


@case(INVALID, "id", "UTF-8")
def id_that_is_not_utf8() -> Any:
    return b"\x1a\x01\xff" + good().SerializeToString()


# ---- What only the model finds


@case(TOO_LARGE, "'filled'", "too little memory for the run", "Failed to allocate memory", "send less at once")
def more_memory_than_there_is() -> Any:
    return infer_request("filled", {"size": np.array([HUGE])})


@case(INTERNAL, "'gather'", "ONNX Runtime failed to run the model")
def value_that_the_model_cannot_take() -> Any:
    return infer_request("gather", {"index": np.array([99])})


@pytest.mark.parametrize("case", CASES)
def test_a_call_is_refused_with_what_was_given_and_wanted(client: Client, case: Case) -> None:
    error = client.error("ModelInfer", case.build())
    assert (error.code(), error.details()) == (case.code, Containing(*case.words))
    assert_serves(client)


@pytest.mark.parametrize("case", CASES)
def test_a_stream_answers_a_mistake_with_its_id_and_goes_on(client: Client, case: Case) -> None:
    answers = answers_by_id(client.stream([good(id="before"), with_id(case.build(), "bad"), good(id="after")]))
    bad = answers.pop("" if "" in answers else "bad")
    assert bad.error_message == Containing(*case.words)
    assert not bad.infer_response.outputs
    for answer in (answers["before"], answers["after"]):
        np.testing.assert_array_equal(arrays_of(answer.infer_response)["y"], 2 * X)


@pytest.mark.parametrize("case", CASES)
def test_a_stream_that_wants_errors_as_status_ends_with_it(client: Client, case: Case) -> None:
    stream = client.stream([with_id(case.build(), "bad")], metadata=[("triton_grpc_error", "true")])
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert (caught.value.code(), caught.value.details()) == (case.code, Containing(*case.words))
    assert_serves(client)


class Containing:
    """Equals every text that has all of these words in it; shows them where a comparison fails."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __eq__(self, text: object) -> bool:
        return isinstance(text, str) and all(word in text for word in self._words)

    def __hash__(self) -> int:
        return hash(self._words)

    def __repr__(self) -> str:
        return f"text with {', '.join(map(repr, self._words))}"


def with_id(message: Any, request_id: str) -> Any:
    if not isinstance(message, bytes):
        message.id = request_id
    return message


def answers_by_id(stream: Any) -> dict[str, Any]:
    return {answer.infer_response.id: answer for answer in stream}


# ---- The same header again: the server remembers headers, so mistakes in what follows them are checked apart


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], "0 elements in contents.fp32_contents given"),
        ([b""], "0 bytes given"),
        ([b"\0" * 15], "15 bytes given"),
        ([b"\0" * 17], "17 bytes given"),
        ([b"\0" * 16] * 2, "raw_input_contents holds 2 entries for 1 inputs"),
    ],
)
def test_tensors_are_checked_behind_a_header_that_was_good_before(client: Client, raw: list[bytes], words: str) -> None:
    assert_serves(client)
    message = good()
    message.raw_input_contents[:] = raw
    error = client.error("ModelInfer", message)
    assert (error.code(), error.details()) == (INVALID, Containing(words, "wanted"))
    assert_serves(client)


def test_bools_are_checked_behind_a_header_that_was_good_before(client: Client) -> None:
    flags = infer_request("flags", {"x": np.array([[True, False]])})
    np.testing.assert_array_equal(client.infer(flags)["y"], [[True, False]])
    assert client.error("ModelInfer", bool_that_is_2()).code() is INVALID
    np.testing.assert_array_equal(client.infer(flags)["y"], [[True, False]])


def test_strings_are_checked_behind_a_header_that_was_good_before(client: Client) -> None:
    words = infer_request("words", {"x": texts(b"good", b"too")})
    assert client.infer(words)["y"].tolist() == [[b"good", b"too"]]
    assert client.error("ModelInfer", string_that_is_not_utf8()).code() is INVALID
    assert client.infer(words)["y"].tolist() == [[b"good", b"too"]]


# ---- Beside others


def test_a_string_that_is_not_utf8_leaves_the_requests_beside_it_alone(client: Client) -> None:
    good_words = [texts(b"word %d" % number, b"") for number in range(16)]
    futures = [client.future(infer_request("words", {"x": words})) for words in good_words[:8]]
    bad = client.future(string_that_is_not_utf8())
    futures += [client.future(infer_request("words", {"x": words})) for words in good_words[8:]]
    assert bad.code() is INVALID
    for future, words in zip(futures, good_words, strict=True):
        assert arrays_of(future.result())["y"].tolist() == words.tolist()


def test_huge_dimensions_allocate_nothing(client: Client) -> None:
    before = peak_virtual_memory_bytes()
    for build in (
        huge_dimension,
        huge_dimension_of_strings,
        huge_dimension_of_contents,
        huge_dimension_of_nothing,
        dimensions_whose_product_needs_more_than_64_bits,
        bytes_that_announce_all_that_they_can,
    ):
        client.error("ModelInfer", build())
    # Not 0: a thread of gRPC may begin meanwhile, with its stack and arena.
    assert peak_virtual_memory_bytes() - before < 2**30


def peak_virtual_memory_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPeak"))
    return int(line.split()[1]) * 1024


# ---- Limits


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server that takes and sends at most 64 KiB."""
    folder = tmp_path_factory.mktemp("narrow")
    double = make_models.save(make_models.scale(2.0), folder / "double.onnx")
    wide = make_models.save(make_models.linear(features=1, classes=20_000), folder / "wide.onnx")
    running = RunningServer(model=(str(double), str(wide)), max_message_bytes=2**16, default_max_batch_size=2)
    made = Client(running.url)
    yield made
    made.close()
    running.stop()


def test_a_message_over_the_limit_is_refused_with_both_sizes(narrow: Client) -> None:
    error = narrow.error("ModelInfer", good(id="i" * 2**16))
    assert (error.code(), error.details()) == (TOO_LARGE, Containing("larger than max", str(2**16)))
    assert_serves(narrow)


def test_a_message_over_the_limit_ends_its_stream_and_nothing_else(narrow: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(narrow.stream([good(id="i" * 2**16)]))
    assert caught.value.code() is TOO_LARGE
    assert_serves(narrow)


def test_a_message_that_is_small_only_while_it_is_compressed_is_refused(narrow: Client) -> None:
    call = narrow.channel.unary_unary(oip.METHODS["ModelInfer"].path)
    data = good(id="i" * 2**20).SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        call(data, timeout=20, compression=grpc.Compression.Gzip)
    assert caught.value.code() is TOO_LARGE
    assert_serves(narrow)


def wide() -> ModelInferRequest:
    """A small request whose answer takes 80 kB."""
    return infer_request("wide", {"x": np.ones((1, 1), np.float32)}, id="wide")


def test_an_answer_over_the_limit_is_refused_with_both_sizes(narrow: Client) -> None:
    error = narrow.error("ModelInfer", wide())
    assert (error.code(), error.details()) == (TOO_LARGE, Containing("larger than max", "80036", str(2**16)))
    assert_serves(narrow)


def test_an_answer_over_the_limit_ends_its_stream_and_nothing_else(narrow: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(narrow.stream([wide()]))
    assert (caught.value.code(), caught.value.details()) == (TOO_LARGE, Containing("larger than max", str(2**16)))
    assert_serves(narrow)


# ---- Every other call

_OFFERED = ["ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig"]
_OFFERED += ["ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"]
_OFFERED += ["TraceSetting", "LogSettings"]
_NOT_OFFERED = sorted(set(oip.METHODS) - {*_OFFERED, "ModelInfer", "ModelStreamInfer"})


@pytest.mark.parametrize("name", [*_OFFERED, "Check", "List"])
def test_garbage_is_refused_by_every_unary_call(client: Client, name: str) -> None:
    error = client.error(name, b"\xff" * 64)
    request_class = {**oip.METHODS, **health.METHODS}[name].request_class
    assert (error.code(), error.details()) == (INVALID, Containing(request_class.__name__))
    assert_serves(client)


def test_garbage_is_refused_by_health_watch(client: Client) -> None:
    method = health.METHODS["Watch"]
    with pytest.raises(grpc.RpcError) as caught:
        next(client.channel.unary_stream(method.path)(b"\xff" * 64, timeout=20))
    assert (caught.value.code(), caught.value.details()) == (INVALID, Containing(method.request_class.__name__))


@pytest.mark.parametrize("name", ["ModelMetadata", "ModelConfig", "ModelStatistics", "ModelReady"])
def test_an_unknown_model_or_version_is_refused_by_every_call_about_models(client: Client, name: str) -> None:
    error = client.error(name, name="dubble")
    assert (error.code(), error.details()) == (NOT_FOUND, Containing("'dubble'", "'double'"))
    error = client.error(name, name="double", version="7")
    assert (error.code(), error.details()) == (NOT_FOUND, Containing("'double'", "'7'", "it has 1"))


@pytest.mark.parametrize("name", _NOT_OFFERED)
def test_a_call_that_is_not_offered_says_so(client: Client, name: str) -> None:
    error = client.error(name)
    assert (error.code(), error.details()) == (UNIMPLEMENTED, Containing(name, "not offered"))
    assert_serves(client)


def test_the_calls_that_are_not_offered_are_those_that_the_extensions_leave_out(client: Client) -> None:
    extensions = set(client.call("ServerMetadata").extensions)
    assert not extensions & {"system_shared_memory", "cuda_shared_memory", "sequence"}


@pytest.mark.parametrize("path", [f"/{oip.SERVICE}/ModelTrain", "/inference.Nobody/ModelInfer"])
def test_an_unknown_method_is_unimplemented(client: Client, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.channel.unary_unary(path)(b"", timeout=20)
    assert caught.value.code() is UNIMPLEMENTED
    assert_serves(client)


@pytest.mark.parametrize("name", ["模" * 5000, "\n" * 5000, "x" * 50_000])
def test_a_name_of_any_length_and_script_is_refused_as_unknown(client: Client, name: str) -> None:
    # The text travels percent-encoded in a header, which clients take up to a size.
    for error in (client.error("ModelMetadata", name=name), client.error("Check", service=name)):
        assert error.code() is NOT_FOUND
        assert "is unknown" in error.details() or error.details().endswith("...")
