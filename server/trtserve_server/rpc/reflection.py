"""gRPC server reflection, v1 and v1alpha: the two differ in their package name alone, so one servicer is both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from trtserve_protos.pool import POOL
from trtserve_server.transport.call import Call, Handlers, Streaming

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_METHOD = "ServerReflectionInfo"


class ReflectionService:
    """Describes `services`, which are in our descriptor pool, and reflection itself."""

    def __init__(self, services: Sequence[str]) -> None:
        _describe_reflection()
        self._servicer = reflection.ReflectionServicer((*services, *SERVICES), pool=POOL)
        self._open: set[Call] = set()
        self._ended = False

    def handlers(self) -> Handlers:
        """One for each version."""
        return {f"/{service}/{_METHOD}": Streaming(self._begin) for service in SERVICES}

    def end(self) -> None:
        """Ends every open call: by themselves they end when their clients want it."""
        self._ended = True
        for call in tuple(self._open):
            self._close(call, grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    def _begin(self, call: Call) -> None:
        if self._ended:
            call.end(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            return
        self._open.add(call)
        call.on_cancel = partial(self._open.discard, call)
        call.receive(partial(self._received, call))

    def _received(self, call: Call, message: bytes | None) -> None:
        if call.is_over:
            return
        if message is None:
            self._close(call, grpc.StatusCode.OK)
            return
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError:
            self._close(call, grpc.StatusCode.INVALID_ARGUMENT, "the message is no ServerReflectionRequest")
            return
        self._answer(call, iter(self._servicer.ServerReflectionInfo(iter((request,)), None)), success=True)

    def _answer(self, call: Call, answers: Iterator[Any], *, success: bool) -> None:
        """Sends the next answer to a request; after the last one the next request is received."""
        answer = next(answers, None)
        if answer is None:
            call.receive(partial(self._received, call))
        elif success:
            call.send(answer.SerializeToString(), lambda sent: self._answer(call, answers, success=sent))

    def _close(self, call: Call, code: grpc.StatusCode, details: str = "") -> None:
        self._open.discard(call)
        call.end(code, details)


def _describe_reflection() -> None:
    """Puts the definition of reflection into our pool under both of its package names."""
    alpha = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    text = text_format.MessageToString(alpha)
    stable = text_format.Parse(text.replace("v1alpha", "v1"), descriptor_pb2.FileDescriptorProto())
    for file in (alpha, stable):
        POOL.AddSerializedFile(file.SerializeToString())
