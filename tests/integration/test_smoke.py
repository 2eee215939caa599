"""A server, a model, a request: the shortest way through everything."""

import grpc
import numpy as np

from tests.models import make_models
from trtserve_protos import dtypes, oip, tensors, wire


def test_a_request_comes_back_with_the_models_numbers(serve, tmp_path):
    server = serve(model=(str(make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")),))
    message = oip.ModelInferRequest(model_name="double", id="7")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    data = wire.encode_infer_request(message, [tensors.raw_from_array(np.array([[1, 2, 3, 4]], np.float32))])
    with grpc.insecure_channel(server.url) as channel:
        answer = channel.unary_unary(oip.METHODS["ModelInfer"].path)(data)
    header, raw = wire.decode_infer_response(answer)
    assert (header.model_name, header.model_version, header.id) == ("double", "1", "7")
    output = tensors.array_from_raw(raw[0], dtypes.from_name(header.outputs[0].datatype), header.outputs[0].shape)
    np.testing.assert_array_equal(output, [[2, 4, 6, 8]])
