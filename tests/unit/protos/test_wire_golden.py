"""Bytes as stock Open Inference Protocol programs send them, made once with tritonclient 2.73.0 and kept here."""

import numpy as np
import pytest

from trtserve_protos import dtypes, oip, tensors, wire

# InferenceServerClient.infer("m", x of FP32 [[1, -2.5]], model_version="1", request_id="7", output "y")
FP32_REQUEST = "0a016d 120131 1a0137 2a0d 0a0178 120446503332 1a020102 3203 0a0179 3a08 0000803f000020c0"
# infer("words", b of BYTES ["a", ""] and i of INT16 [1, -1, 300], priority=3, timeout=500, parameters={"k": "v"})
TWO_INPUTS_REQUEST = (
    "0a05 776f726473 2208 0a016b 1203 1a0176 220e 0a08 7072696f72697479 1202 2803 220e 0a07 74696d656f7574 1203 10f403"
    "2a0d 0a0162 1205 4259544553 1a0102 2a0d 0a0169 1205 494e543136 1a0103"
    "3a09 01000000 61 00000000 3a06 0100 ffff 2c01"
)
# Its message classes: model "m", id "7", input x of UINT8 [1, 255] in typed contents
CONTENTS_REQUEST = "0a016d 1a0137 2a14 0a0178 1205 55494e5438 1a0102 2a05 2203 01 ff01"
# Its message classes: model "m" version "1", id "7", output y of FP32 [[0.5, 2]]
RESPONSE = "0a016d 120131 1a0137 2a0d 0a0179 120446503332 1a020102 3208 0000003f00000040"
STREAM_RESPONSE = "1222" + RESPONSE
STREAM_ERROR = "0a02 6e6f 1203 1a0137"


def fp32_header(cls, tensors_field, name):
    header = cls(model_name="m", model_version="1", id="7")
    getattr(header, tensors_field).add(name=name, datatype="FP32", shape=[1, 2])
    return header


def arrays(inputs, raw):
    return {
        tensor.name: tensors.array_from_raw(data, dtypes.from_name(tensor.datatype), tensor.shape).tolist()
        for tensor, data in zip(inputs, raw, strict=True)
    }


def test_request_with_one_tensor():
    request, raw = wire.decode_infer_request(bytes.fromhex(FP32_REQUEST))
    assert (request.model_name, request.model_version, request.id) == ("m", "1", "7")
    assert [output.name for output in request.outputs] == ["y"]
    assert arrays(request.inputs, raw) == {"x": [[1.0, -2.5]]}


def test_our_client_sends_the_same_request():
    header = fp32_header(oip.ModelInferRequest, "inputs", "x")
    header.outputs.add(name="y")
    raw = [tensors.raw_from_array(np.array([[1.0, -2.5]], np.float32))]
    assert wire.encode_infer_request(header, raw) == bytes.fromhex(FP32_REQUEST)


def test_request_with_strings_and_parameters():
    request, raw = wire.decode_infer_request(bytes.fromhex(TWO_INPUTS_REQUEST))
    assert (request.model_name, request.model_version, request.id) == ("words", "", "")
    assert request.parameters["priority"].uint64_param == 3
    assert request.parameters["timeout"].int64_param == 500
    assert request.parameters["k"].string_param == "v"
    assert arrays(request.inputs, raw) == {"b": [b"a", b""], "i": [1, -1, 300]}


def test_request_with_typed_contents():
    request, raw = wire.decode_infer_request(bytes.fromhex(CONTENTS_REQUEST))
    (tensor,) = request.inputs
    array = tensors.array_from_contents(tensor.contents, dtypes.from_name(tensor.datatype), tensor.shape)
    assert (request.id, raw, array.dtype, array.tolist()) == ("7", [], np.uint8, [1, 255])


def test_response():
    response, raw = wire.decode_infer_response(bytes.fromhex(RESPONSE))
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "7")
    assert arrays(response.outputs, raw) == {"y": [[0.5, 2.0]]}


def test_our_server_sends_the_same_response():
    header = fp32_header(oip.ModelInferResponse, "outputs", "y")
    raw = [tensors.raw_from_array(np.array([[0.5, 2.0]], np.float32))]
    assert wire.encode_infer_response(header, raw) == bytes.fromhex(RESPONSE)
    assert wire.encode_stream_response(header, raw) == bytes.fromhex(STREAM_RESPONSE)


def test_stream_response():
    error, response = wire.decode_stream_response(bytes.fromhex(STREAM_RESPONSE))
    assert (error, bytes(response)) == ("", bytes.fromhex(RESPONSE))


def test_stream_error_with_the_id_of_its_request():
    error, response = wire.decode_stream_response(bytes.fromhex(STREAM_ERROR))
    assert (error, wire.decode_infer_response(response)[0].id) == ("no", "7")


@pytest.mark.parametrize("message", [FP32_REQUEST, TWO_INPUTS_REQUEST])
def test_header_holds_everything_but_id_and_tensors(message):
    data = bytes.fromhex(message)
    rest = data.replace(bytes.fromhex("1a0137"), b"")
    assert wire.split_infer_request(data).header == rest[: rest.index(b"\x3a")]
