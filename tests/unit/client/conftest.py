"""A small server of the protocol for the client's tests: an echo model, and answers that a test may replace."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.unit.client.command import Run
from trtserve_client import Client, aio, cli
from trtserve_protos import dtypes, health, oip, tensors

WAIT_S = 10.0
"""How long a test waits for an event that should come at once."""

Handler = Callable[[Any, grpc.ServicerContext], Any]
TensorRow = tuple[str, str, Sequence[int]]


class OipServer:
    """Serves `models` on a port of the system's choice; `answers` maps the name of a call to what answers it.

    A handler takes and gives bytes, that of ModelStreamInfer iterators of bytes. `calls` counts what came in.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0") -> None:
        self.models: dict[str, oip.ModelMetadataResponse] = {}
        self.statuses = {"": "SERVING", "echo": "NOT_SERVING"}
        self.calls: list[str] = []
        self.headers: dict[str, str | bytes] = {}
        self.requests: list[oip.ModelInferRequest] = []
        self.cancelled = threading.Event()
        self.answers: dict[str, Handler] = {
            "ServerLive": lambda request, context: oip.ServerLiveResponse(live=True).SerializeToString(),
            "ServerReady": lambda request, context: oip.ServerReadyResponse(ready=True).SerializeToString(),
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "ModelInfer": lambda request, context: self.echo(request),
            "ModelStreamInfer": self._echo_stream,
            "Check": self._check,
        }
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1)])
        for service, table in ((oip.SERVICE, oip.METHODS), (health.SERVICE, health.METHODS)):
            handlers = {name: self._handler(name, method.client_streams) for name, method in table.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self.url = f"127.0.0.1:{self.port}"
        self.serve("echo", [("x", "FP32", [-1, 2])], [("x", "FP32", [-1, 2])])
        self._server.start()

    def serve(self, name: str, inputs: Sequence[TensorRow], outputs: Sequence[TensorRow] = ()) -> None:
        """Describes a model; whatever it says, it echoes."""
        make = oip.ModelMetadataResponse.TensorMetadata
        self.models[name] = oip.ModelMetadataResponse(
            name=name,
            versions=["1"],
            platform="echo",
            inputs=[make(name=n, datatype=d, shape=s) for n, d, s in inputs],
            outputs=[make(name=n, datatype=d, shape=s) for n, d, s in outputs],
        )

    def echo(self, request: bytes) -> bytes:
        """The inputs as outputs of the same names, or of those asked for; `classification` is honoured."""
        header = oip.ModelInferRequest.FromString(request)
        self.requests.append(header)
        arrays = {
            tensor.name: tensors.array_from_raw(data, dtypes.from_name(tensor.datatype), tensor.shape)
            for tensor, data in zip(header.inputs, header.raw_input_contents, strict=True)
        }
        response = oip.ModelInferResponse(model_name=header.model_name, model_version="1", id=header.id)
        for name in [output.name for output in header.outputs] or list(arrays):
            top = next((o.parameters["classification"].int64_param for o in header.outputs if o.name == name), 0)
            array = classified(arrays[name], top) if top else arrays[name]
            response.outputs.add(name=name, datatype=dtypes.from_numpy(array.dtype).name, shape=array.shape)
            response.raw_output_contents.append(bytes(tensors.raw_from_array(array)))
        return response.SerializeToString()

    def stream_answer(self, request: bytes) -> bytes:
        """The echo in a stream's answer."""
        response = oip.ModelInferResponse.FromString(self.echo(request))
        return oip.ModelStreamInferResponse(infer_response=response).SerializeToString()

    def stream_error(self, request: bytes, text: str) -> bytes:
        """An in-band error for a request of a stream."""
        response = oip.ModelInferResponse(id=oip.ModelInferRequest.FromString(request).id)
        return oip.ModelStreamInferResponse(error_message=text, infer_response=response).SerializeToString()

    def wait_for_cancel(self, request: Any, context: grpc.ServicerContext) -> bytes:
        """A handler that never answers: it waits until its call is cancelled."""
        ended = threading.Event()
        if context.add_callback(ended.set):
            ended.wait(WAIT_S)
        self.cancelled.set()
        return b""

    def stop(self) -> None:
        """Ends every call at once."""
        self._server.stop(0).wait()

    def _handler(self, name: str, streams: bool) -> grpc.RpcMethodHandler[Any, Any]:
        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append(name)
            self.headers = dict(context.invocation_metadata())
            if name not in self.answers:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not offered")
            return bytes(self.answers[name](request, context))

        def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            self.calls.append(name)
            self.headers = dict(context.invocation_metadata())
            context.add_callback(self.cancelled.set)
            yield from self.answers[name](requests, context)

        if streams:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    def _echo_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield self.stream_answer(request)

    def _server_metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return oip.ServerMetadataResponse(name="fake", version="0.1", extensions=["a", "b"]).SerializeToString()

    def _model_ready(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name = oip.ModelReadyRequest.FromString(request).name
        return oip.ModelReadyResponse(ready=name in self.models).SerializeToString()

    def _model_metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name = oip.ModelMetadataRequest.FromString(request).name
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {name}")
        return self.models[name].SerializeToString()

    def _model_config(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name = oip.ModelConfigRequest.FromString(request).name
        return oip.ModelConfigResponse(config=oip.ModelConfig(name=name, max_batch_size=8)).SerializeToString()

    def _model_statistics(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        stats = [oip.ModelStatistics(name=name, inference_count=7) for name in self.models]
        return oip.ModelStatisticsResponse(model_stats=stats).SerializeToString()

    def _repository_index(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        make = oip.RepositoryIndexResponse.ModelIndex
        models = [make(name=name, version="1", state="READY") for name in self.models]
        if not oip.RepositoryIndexRequest.FromString(request).ready:
            models.append(make(name="broken", version="3", state="UNAVAILABLE", reason="file is missing"))
        return oip.RepositoryIndexResponse(models=models).SerializeToString()

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        service = health.HealthCheckRequest.FromString(request).service
        if service not in self.statuses:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health.HealthCheckResponse(status=self.statuses[service]).SerializeToString()


def classified(array: np.ndarray, top: int) -> np.ndarray:
    """The answer of the classification extension for rows of scores: "value:index:label"."""
    rows = [[f"{row[i]:f}:{i}:label {i}".encode() for i in np.argsort(-row)[:top]] for row in array]
    return np.array(rows, object)


@pytest.fixture
def server() -> Iterator[OipServer]:
    """A server with the model "echo": x FP32 [-1, 2] in and out."""
    server = OipServer()
    yield server
    server.stop()


@pytest.fixture
def client(server: OipServer) -> Iterator[Client]:
    """A client of `server`."""
    with Client(server.url) as client:
        yield client


@pytest.fixture
def run(server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against the server; gives exit code, stdout, stderr."""
    monkeypatch.setenv("TRTSERVE_CLIENT_URL", server.url)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = cli.main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def collect_sync(server: OipServer, elements: Iterable[Any], sink: list[Any], **settings: Any) -> None:
    """Puts the results of a stream into `sink`, which also keeps those before an error."""
    with Client(server.url) as client:
        for result in client.stream("echo", elements, **settings):
            sink.append(result)


def collect_async(server: OipServer, elements: Iterable[Any], sink: list[Any], **settings: Any) -> None:
    """The same by the asynchronous client."""

    async def run() -> None:
        async with aio.Client(server.url) as client:
            async for result in client.stream("echo", elements, **settings):
                sink.append(result)

    asyncio.run(run())


@pytest.fixture(params=[collect_sync, collect_async], ids=["sync", "async"])
def collect(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Reads a whole stream, once by each client."""
    chosen: Callable[..., None] = request.param
    return chosen


@pytest.fixture
def make_server() -> Iterator[Callable[..., OipServer]]:
    """Makes servers with other credentials or addresses, and stops them."""
    servers: list[OipServer] = []

    def make(*arguments: Any, **settings: Any) -> OipServer:
        servers.append(OipServer(*arguments, **settings))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is not here to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return key, chain
