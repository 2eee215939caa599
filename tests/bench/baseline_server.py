"""The baseline: a servicer as anyone would write it on grpc.aio and uvloop, which echoes the first input.

It uses protobuf messages for everything and none of the server's code. `python -m tests.bench.baseline_server`
prints its port.
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import uvloop

from trtserve_protos import oip


async def infer(request: Any, context: Any) -> Any:
    """The first input as output `y`."""
    response = oip.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    tensor = request.inputs[0]
    response.outputs.add(name="y", datatype=tensor.datatype, shape=tensor.shape)
    response.raw_output_contents.append(request.raw_input_contents[0])
    return response


async def serve() -> None:
    """Serves until killed."""
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=unlimited)
    handler = grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=oip.ModelInferRequest.FromString,
        response_serializer=oip.ModelInferResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(oip.SERVICE, {"ModelInfer": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve())
