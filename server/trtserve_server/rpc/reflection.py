"""gRPC server reflection, v1 and v1alpha: the two differ in their package name alone, so one servicer is both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

from trtserve_protos.pool import POOL

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_METHOD = "ServerReflectionInfo"


class ReflectionService:
    """Describes `services`, which are in our descriptor pool, and reflection itself."""

    def __init__(self, services: Sequence[str]) -> None:
        _describe_reflection()
        self._servicer = reflection.aio.ReflectionServicer((*services, *SERVICES), pool=POOL)
        self._end = asyncio.get_running_loop().create_future()

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """One for each version."""
        handler = grpc.stream_stream_rpc_method_handler(
            self._answer,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return [grpc.method_handlers_generic_handler(service, {_METHOD: handler}) for service in SERVICES]

    def end(self) -> None:
        """Ends every open call: by themselves they end when their clients want it."""
        if not self._end.done():
            self._end.set_result(None)

    async def _answer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in self._servicer.ServerReflectionInfo(self._until_end(aiter(requests)), context):
            yield answer
        if self._end.done():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    async def _until_end(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        while not self._end.done():
            read = asyncio.ensure_future(anext(requests, None))
            try:
                await asyncio.wait({read, self._end}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done() or (request := read.result()) is None:
                    return
            finally:
                read.cancel()
            yield request


def _describe_reflection() -> None:
    """Puts the definition of reflection into our pool under both of its package names."""
    alpha = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    text = text_format.MessageToString(alpha)
    stable = text_format.Parse(text.replace("v1alpha", "v1"), descriptor_pb2.FileDescriptorProto())
    for file in (alpha, stable):
        POOL.AddSerializedFile(file.SerializeToString())
