"""gRPC server reflection, v1 and v1alpha: the two differ in their package name alone, so one servicer is both."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

from trtserve_protos.pool import POOL

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_METHOD = "ServerReflectionInfo"


def reflection_handlers(services: Sequence[str]) -> list[grpc.GenericRpcHandler]:
    """Handlers that describe `services`, which are in our descriptor pool, and reflection itself."""
    _describe_reflection()
    servicer = reflection.aio.ReflectionServicer((*services, *SERVICES), pool=POOL)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(service, {_METHOD: handler}) for service in SERVICES]


def _describe_reflection() -> None:
    """Puts the definition of reflection into our pool under both of its package names."""
    alpha = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    text = text_format.MessageToString(alpha)
    stable = text_format.Parse(text.replace("v1alpha", "v1"), descriptor_pb2.FileDescriptorProto())
    for file in (alpha, stable):
        POOL.AddSerializedFile(file.SerializeToString())
