"""gRPC server reflection: enough to call the server with nothing but what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2

from tests.models import make_models
from tests.support.oip_client import WAIT_S, Client
from tests.support.running_server import RunningServer

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]

VERSIONS = ["v1", "v1alpha"]


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> RunningServer:
    return serve(model=(str(make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")),))


def ask(client: Client, version: str, **request: Any) -> Any:
    """The answer to one question. The messages of both versions are the same but for their package."""
    call = client.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = call(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=WAIT_S)
    return answer


def pool_of(client: Client, version: str, symbol: str) -> descriptor_pool.DescriptorPool:
    """A fresh pool with the file that defines `symbol` and all that it imports."""
    pool = descriptor_pool.DescriptorPool()
    known: set[str] = set()

    def add(data: bytes) -> None:
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        if file.name in known:
            return
        known.add(file.name)
        for name in file.dependency:
            for needed in ask(client, version, file_by_filename=name).file_descriptor_response.file_descriptor_proto:
                add(needed)
        pool.AddSerializedFile(data)

    for data in ask(client, version, file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto:
        add(data)
    return pool


@pytest.mark.parametrize("version", VERSIONS)
def test_every_service_is_listed(server: RunningServer, connect: Connect, version: str) -> None:
    services = ask(connect(server), version, list_services="").list_services_response.service
    assert sorted(service.name for service in services) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "trtserve.v1.RowInference",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_listed_service_is_described(server: RunningServer, connect: Connect, version: str) -> None:
    client = connect(server)
    for service in ask(client, version, list_services="").list_services_response.service:
        assert pool_of(client, version, service.name).FindServiceByName(service.name).methods


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_can_call_with_messages_made_from_reflection_alone(
    server: RunningServer, connect: Connect, version: str
) -> None:
    client = connect(server)
    service = pool_of(client, version, "inference.GRPCInferenceService").FindServiceByName(
        "inference.GRPCInferenceService"
    )
    method = service.methods_by_name["ModelInfer"]
    request = message_factory.GetMessageClass(method.input_type)(model_name="double")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    answer = client.channel.unary_unary(f"/{service.full_name}/{method.name}")(
        request.SerializeToString(), timeout=WAIT_S
    )
    response = message_factory.GetMessageClass(method.output_type).FromString(answer)
    assert list(response.outputs[0].contents.fp32_contents) == [2, 4, 6, 8]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("question", [{"file_containing_symbol": "no.Such"}, {"file_by_filename": "no/such.proto"}])
def test_what_is_unknown_is_an_error_inside_the_answer(
    server: RunningServer, connect: Connect, version: str, question: dict
) -> None:
    answer = ask(connect(server), version, **question)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_an_open_reflection_call_does_not_hold_up_the_stop(server: RunningServer, connect: Connect) -> None:
    questions: SimpleQueue[bytes | None] = SimpleQueue()
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    call = connect(server).channel.stream_stream(path)(iter(questions.get, None), timeout=WAIT_S)
    questions.put(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
    next(call)
    assert server.stop(drain_timeout_s=WAIT_S)
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is stopping",
    )
    questions.put(None)


def test_reflection_can_be_switched_off(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    client = connect(serve(model_repository=(str(tmp_path),), reflection=False))
    with pytest.raises(grpc.RpcError) as caught:
        ask(client, "v1", list_services="")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
