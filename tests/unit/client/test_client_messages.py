"""Requests and responses: every datatype there and back, parameters, outputs, answers that break the rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from trtserve_client import BadResponse, InputError, Result
from trtserve_client.messages import fill_parameters, infer_request, result_from_response
from trtserve_client.result import values_from_parameters
from trtserve_protos import dtypes, oip, tensors
from trtserve_protos.dtypes import DataType

SHAPES = [(), (0, 3), (1,), (2, 3)]


def sample(datatype: DataType, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    if datatype is dtypes.BYTES:
        array = np.empty(count, object)
        array[:] = [b"\x00" * index + "é".encode() for index in range(count)]
        return array.reshape(shape)
    return (np.arange(count) % 2).astype(datatype.numpy).reshape(shape)


def answer(array: np.ndarray, *, raw: bool = True) -> bytes:
    """A response with the one output "y"."""
    response = oip.ModelInferResponse(model_name="m", model_version="2", id="7")
    output = response.outputs.add(name="y", datatype=dtypes.from_numpy(array.dtype).name, shape=array.shape)
    if raw:
        response.raw_output_contents.append(bytes(tensors.raw_from_array(array)))
    else:
        tensors.fill_contents(output.contents, array)
    return response.SerializeToString()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("datatype", dtypes.TABLE, ids=lambda datatype: datatype.name)
def test_an_array_arrives_as_it_was_sent(datatype: DataType, shape: tuple[int, ...]) -> None:
    array = sample(datatype, shape)
    message = oip.ModelInferRequest.FromString(infer_request("m", {"x": array}, version="2", id="7"))
    assert (message.model_name, message.model_version, message.id) == ("m", "2", "7")
    (sent,) = message.inputs
    assert (sent.name, sent.datatype, tuple(sent.shape)) == ("x", datatype.name, shape)
    back = tensors.array_from_raw(message.raw_input_contents[0], datatype, shape)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


# FP16 and BF16 travel raw only.
FORMS = [(each, raw) for each in dtypes.TABLE for raw in (True, False) if raw or tensors.has_contents(each)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("datatype", "raw"), FORMS, ids=[f"{f[0].name}-{'raw' if f[1] else 'typed'}" for f in FORMS])
def test_a_result_holds_read_only_arrays(datatype: DataType, shape: tuple[int, ...], raw: bool) -> None:
    array = sample(datatype, shape)
    result = result_from_response(answer(array, raw=raw))
    assert (result.model_name, result.model_version, result.id) == ("m", "2", "7")
    assert result["y"].dtype == array.dtype and result["y"].shape == shape
    assert not result["y"].flags.writeable
    np.testing.assert_array_equal(result["y"], array)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=9) | st.text(max_size=9), max_size=5))
def test_strings_of_any_content_arrive(elements: list[bytes | str]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    message = oip.ModelInferRequest.FromString(infer_request("m", {"x": array}))
    back = tensors.array_from_raw(message.raw_input_contents[0], dtypes.BYTES, array.shape)
    assert list(back) == [e.encode("utf-8") if isinstance(e, str) else e for e in elements]


def test_inputs_keep_their_order_and_layout_is_made_right() -> None:
    fortran = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    big_endian = np.arange(3, dtype=">i4")
    message = oip.ModelInferRequest.FromString(infer_request("m", {"b": fortran, "a": big_endian}))
    assert [tensor.name for tensor in message.inputs] == ["b", "a"]
    assert message.raw_input_contents[0] == np.arange(6, dtype="<f4").tobytes()
    assert message.raw_input_contents[1] == np.arange(3, dtype="<i4").tobytes()


PARAMETERS = [
    (True, "bool_param"),
    (False, "bool_param"),
    (0, "int64_param"),
    (-(2**63), "int64_param"),
    (2**63 - 1, "int64_param"),
    (2**63, "uint64_param"),
    (2**64 - 1, "uint64_param"),
    (1.5, "double_param"),
    ("", "string_param"),
    ("höhe", "string_param"),
]


@pytest.mark.parametrize(("value", "field"), PARAMETERS, ids=[f"{value!r}" for value, _ in PARAMETERS])
def test_a_parameter_takes_the_field_of_its_type(value: bool | int | float | str, field: str) -> None:
    message = oip.ModelInferRequest()
    fill_parameters(message.parameters, {"p": value})
    assert message.parameters["p"].WhichOneof("parameter_choice") == field
    back = values_from_parameters(message.parameters)
    assert back == {"p": value} and type(back["p"]) is type(value)


@given(st.dictionaries(st.text(max_size=5), st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5)))
def test_parameters_arrive_as_they_were_given(values: dict[str, bool | int | str]) -> None:
    message = oip.ModelInferRequest.FromString(infer_request("m", {}, parameters=values))
    assert values_from_parameters(message.parameters) == values


def test_numpy_scalars_are_parameters_too() -> None:
    message = oip.ModelInferRequest()
    fill_parameters(message.parameters, {"i": np.int32(3), "b": np.bool_(True)})  # type: ignore[dict-item]
    assert values_from_parameters(message.parameters) == {"i": 3, "b": True}


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, None, [1], b"x"], ids=repr)
def test_other_parameters_are_refused_by_name(value: object) -> None:
    with pytest.raises(InputError, match=r"parameter 'p': .* given, .* wanted"):
        infer_request("m", {}, parameters={"p": value})  # type: ignore[dict-item]


def test_outputs_are_asked_for_by_name_or_with_parameters() -> None:
    assert not oip.ModelInferRequest.FromString(infer_request("m", {})).outputs
    by_name = oip.ModelInferRequest.FromString(infer_request("m", {}, outputs=["a", "b"]))
    assert [output.name for output in by_name.outputs] == ["a", "b"]
    mapping = {"scores": {"classification": 3}, "box": {}}
    with_parameters = oip.ModelInferRequest.FromString(infer_request("m", {}, outputs=mapping))
    assert {o.name: values_from_parameters(o.parameters) for o in with_parameters.outputs} == mapping


def test_one_name_in_place_of_a_list_of_names_is_refused() -> None:
    with pytest.raises(InputError, match=r'for example \["scores"\]'):
        infer_request("m", {}, outputs="scores")


@pytest.mark.parametrize(
    "array", [np.zeros(2, np.complex64), np.array([object()]), np.zeros(1, "M8[s]")], ids=["complex", "object", "time"]
)
def test_what_has_no_wire_form_is_refused_by_name(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="input 'x' cannot be sent: "):
        infer_request("m", {"x": array})


def test_a_result_is_a_mapping() -> None:
    result = result_from_response(answer(np.zeros((1, 2), np.float32)))
    assert list(result) == ["y"] and len(result) == 1 and "y" in result and result.get("z") is None
    assert dict(result).keys() == {"y"}
    assert repr(result) == "Result(model='m', version='2', id='7', y=float32[1, 2])"
    assert result != Result(dict(result)) and result == result and hash(result)
    with pytest.raises(KeyError, match="no output 'z'; the outputs are y"):
        result["z"]


def test_a_result_brings_its_parameters() -> None:
    response = oip.ModelInferResponse(model_name="m")
    fill_parameters(response.parameters, {"final": True})
    result = result_from_response(response.SerializeToString())
    assert result.parameters == {"final": True} and not result
    assert repr(result) == "Result(model='m', version='', parameters={'final': True})"


def response_with(datatype: str, shape: list[int], raw: list[bytes]) -> bytes:
    response = oip.ModelInferResponse(raw_output_contents=raw)
    response.outputs.add(name="y", datatype=datatype, shape=shape)
    return response.SerializeToString()


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff",
        response_with("FP32", [2], [b"\0" * 4]),
        response_with("FP8", [1], [b"\0"]),
        response_with("FP32", [1], [b"\0" * 4] * 2),
        response_with("FP32", [-1], []),
        response_with("FP16", [1], []),
    ],
    ids=["bytes", "too short", "datatype", "too many", "negative", "no contents"],
)
def test_an_answer_against_the_protocol_is_a_bad_response(message: bytes) -> None:
    with pytest.raises(BadResponse):
        result_from_response(message)
