"""The synchronous client against a server: every call, errors, retries, deadlines, TLS, threads, forks, the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from trtserve_client import (
    Cancelled,
    ChannelOptions,
    Client,
    ClientError,
    ClosedClientError,
    DeadlineExceeded,
    InputError,
    InvalidRequest,
    ModelIndex,
    ModelMetadata,
    NotFound,
    ResourceExhausted,
    ServerMetadata,
    TensorMetadata,
    Unavailable,
    Unimplemented,
)
from trtserve_client.errors import BadResponse
from trtserve_protos import oip

ROW = {"x": np.array([[1, 2]], np.float32)}
FAST_RETRIES = ChannelOptions(first_backoff_ms=10, max_backoff_ms=10)
WAIT_S = 10.0


def abort(code: grpc.StatusCode, details: str = "because") -> Callable[[Any, grpc.ServicerContext], Any]:
    return lambda request, context: context.abort(code, details)


def test_an_inference(client: Client, server: Any) -> None:
    result = client.infer("echo", ROW, version="1", id="a", outputs=["x"], parameters={"priority": 1})
    np.testing.assert_array_equal(result["x"], ROW["x"])
    assert (result.model_name, result.model_version, result.id) == ("echo", "1", "a")
    (request,) = server.requests
    assert (request.model_version, request.id) == ("1", "a")
    assert request.parameters["priority"].int64_param == 1


def test_every_other_call(client: Client) -> None:
    assert client.server_live() is True
    assert client.server_ready() is True
    assert client.model_ready("echo") is True and client.model_ready("other", "2") is False
    assert client.server_metadata() == ServerMetadata("fake", "0.1", ("a", "b"))
    tensor = TensorMetadata("x", "FP32", (-1, 2))
    assert client.model_metadata("echo") == ModelMetadata("echo", ("1",), "echo", (tensor,), (tensor,))
    assert client.model_config("echo").max_batch_size == 8
    assert [statistics.inference_count for statistics in client.model_statistics()] == [7]
    assert client.repository_index(ready=True) == [ModelIndex("echo", "1", "READY", "")]
    assert client.repository_index()[1] == ModelIndex("broken", "3", "UNAVAILABLE", "file is missing")
    assert client.health() == "SERVING" and client.health("echo") == "NOT_SERVING"


def test_metadata_has_what_the_server_says_beyond_the_protocol(client: Client, server: Any) -> None:
    server.models["echo"].parameters["instances"].int64_param = 2
    assert client.model_metadata("echo").parameters == {"instances": 2}


def test_an_error_names_url_and_model(client: Client, server: Any) -> None:
    with pytest.raises(NotFound) as caught:
        client.infer("nope", ROW)
    assert str(caught.value).startswith(f"{server.url} model 'nope': NOT_FOUND: no model nope (")
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    with pytest.raises(NotFound, match="unknown service"):
        client.health("nope")
    del server.answers["RepositoryIndex"]
    with pytest.raises(Unimplemented, match="RepositoryIndex is not offered"):
        client.repository_index()


def test_nothing_there_is_unavailable() -> None:
    with (
        Client("127.0.0.1:1", options=FAST_RETRIES) as client,
        pytest.raises(Unavailable, match="is the server running"),
    ):
        client.server_live()


def test_an_answer_that_is_no_message_is_a_bad_response(client: Client, server: Any) -> None:
    server.answers["ModelMetadata"] = server.answers["ModelInfer"] = lambda request, context: b"\xff\xff"
    with pytest.raises(BadResponse, match="GRPCInferenceService/ModelMetadata cannot be read"):
        client.model_metadata("echo")
    with pytest.raises(BadResponse):
        client.infer("echo", ROW, check=False)


def test_metadata_is_fetched_once_for_a_model_and_version(client: Client, server: Any) -> None:
    for _ in range(3):
        client.infer("echo", ROW)
    assert server.calls.count("ModelMetadata") == 1
    client.infer("echo", ROW, version="1")
    assert server.calls.count("ModelMetadata") == 2
    client.infer("echo", ROW, version="2", check=False)
    assert server.calls.count("ModelMetadata") == 2


def test_a_misfit_is_told_after_a_second_look(client: Client, server: Any) -> None:
    client.infer("echo", ROW)
    server.serve("echo", [("x", "INT64", [-1])])
    assert client.infer("echo", {"x": [7]})["x"].dtype == np.int64
    assert server.calls.count("ModelMetadata") == 2
    with pytest.raises(InputError, match=r"float32 \(FP32\) given, int64 \(INT64\) wanted"):
        client.infer("echo", ROW)
    assert server.calls.count("ModelMetadata") == 3
    assert server.calls.count("ModelInfer") == 2


def test_what_the_server_refuses_is_looked_up_anew(client: Client, server: Any) -> None:
    client.infer("echo", {"x": [[1, 2]]})
    server.serve("echo", [("x", "INT64", [-1, 2])])
    good = server.answers["ModelInfer"]
    server.answers["ModelInfer"] = abort(grpc.StatusCode.INVALID_ARGUMENT, "FP32 given, INT64 wanted")
    with pytest.raises(InvalidRequest):
        client.infer("echo", {"x": [[1, 2]]})
    server.answers["ModelInfer"] = good
    assert client.infer("echo", {"x": [[1, 2]]})["x"].dtype == np.int64


def failing_twice(handler: Callable[..., Any]) -> Callable[..., Any]:
    left = [grpc.StatusCode.UNAVAILABLE] * 2

    def answer(request: bytes, context: grpc.ServicerContext) -> Any:
        if left:
            context.abort(left.pop(), "not yet")
        return handler(request, context)

    return answer


@pytest.mark.parametrize("rows", [1, 300_000], ids=["small", "larger than gRPC's own limit for retries"])
def test_a_call_is_tried_three_times(server: Any, rows: int) -> None:
    server.answers["ModelInfer"] = failing_twice(server.answers["ModelInfer"])
    with Client(server.url, options=FAST_RETRIES) as client:
        client.infer("echo", {"x": np.zeros((rows, 2), np.float32)})
    assert server.calls.count("ModelInfer") == 3


@pytest.mark.parametrize("attempts", [0, 1])
def test_retries_can_be_switched_off(server: Any, attempts: int) -> None:
    server.answers["ServerLive"] = failing_twice(server.answers["ServerLive"])
    with Client(server.url, options=ChannelOptions(max_attempts=attempts)) as client, pytest.raises(Unavailable):
        client.server_live()
    assert server.calls == ["ServerLive"]


def test_other_errors_are_not_tried_again(client: Client, server: Any) -> None:
    server.answers["ModelInfer"] = abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too little memory")
    with pytest.raises(ResourceExhausted, match="too little memory"):
        client.infer("echo", ROW)
    assert server.calls.count("ModelInfer") == 1


def test_a_deadline_ends_the_call_on_both_sides(client: Client, server: Any) -> None:
    server.answers["ModelInfer"] = server.wait_for_cancel
    client.model_metadata("echo")
    with pytest.raises(DeadlineExceeded, match="timeout_s"):
        client.infer("echo", ROW, timeout_s=0.05)
    assert server.cancelled.wait(WAIT_S)


def test_the_deadline_holds_for_the_metadata_too(client: Client, server: Any) -> None:
    server.answers["ModelMetadata"] = server.wait_for_cancel
    with pytest.raises(DeadlineExceeded):
        client.infer("echo", ROW, timeout_s=0.05)
    assert "ModelInfer" not in server.calls


def test_headers_travel(server: Any) -> None:
    with Client(server.url, metadata={"Authorization": "Bearer t"}) as client:
        client.server_live(metadata=[("x-one", "1")])
    assert server.headers["authorization"] == "Bearer t" and server.headers["x-one"] == "1"


@pytest.mark.parametrize(
    ("name", "value"), [("", "1"), ("x y", "1"), ("höhe", "1"), ("x", "höhe"), ("x", "a\nb"), ("x", b"1")], ids=repr
)
def test_headers_that_cannot_be_sent_are_named(client: Client, server: Any, name: str, value: str | bytes) -> None:
    with pytest.raises(ClientError, match=f"header {name!r}: .* wanted"):
        client.server_live(metadata={name: value})
    with pytest.raises(ClientError, match=f"header {name!r}"):
        Client(server.url, metadata=[(name, value)])
    assert not server.calls


def test_bytes_travel_under_a_name_that_says_so(client: Client, server: Any) -> None:
    client.server_live(metadata={"Trace-Bin": b"\x00\xff"})
    assert server.headers["trace-bin"] == b"\x00\xff"


def test_messages_have_no_limit_of_ours(client: Client) -> None:
    big = np.zeros((1 << 20, 2), np.float32)
    assert client.infer("echo", {"x": big})["x"].shape == big.shape


def test_a_limit_can_be_set(server: Any) -> None:
    with Client(server.url, options=ChannelOptions(max_send_bytes=1000)) as client, pytest.raises(ResourceExhausted):
        client.infer("echo", {"x": np.zeros((1000, 2), np.float32)})


def test_a_unix_socket(make_server: Callable[..., Any], tmp_path: Path) -> None:
    make_server(address=f"unix:{tmp_path}/s")
    for url in (f"unix:{tmp_path}/s", f"unix://{tmp_path}/s"):
        with Client(url) as client:
            assert client.server_live()


def test_many_threads_share_a_client(client: Client) -> None:
    def ask(number: int) -> float:
        return float(client.infer("echo", {"x": [[number, 0]]})["x"][0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(64))) == list(range(64))


def test_the_context_closes_and_closing_twice_is_fine(server: Any) -> None:
    with Client(server.url) as client:
        assert client.server_live()
        assert repr(client) == f"Client('{server.url}')"
    client.close()
    for call in (client.server_live, lambda: client.infer("echo", ROW), lambda: client.stream("echo", [])):
        with pytest.raises(ClosedClientError, match="is closed; make a new one"):
            call()


def test_closing_ends_a_call_of_another_thread(server: Any) -> None:
    arrived = threading.Event()

    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        arrived.set()
        return bytes(server.wait_for_cancel(request, context))

    server.answers["ServerLive"] = wait
    client = Client(server.url)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.server_live)
        assert arrived.wait(WAIT_S)
        client.close()
        assert isinstance(call.exception(WAIT_S), ClosedClientError)


def test_a_cancelled_call_of_the_server_is_cancelled(client: Client, server: Any) -> None:
    server.answers["ServerLive"] = abort(grpc.StatusCode.CANCELLED)
    with pytest.raises(Cancelled):
        client.server_live()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_control_c_ends_a_waiting_call(client: Client, server: Any) -> None:
    main = threading.main_thread().ident

    def interrupt(request: bytes, context: grpc.ServicerContext) -> bytes:
        signal.pthread_kill(main or 0, signal.SIGINT)
        return bytes(server.wait_for_cancel(request, context))

    server.answers["ModelInfer"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        client.infer("echo", ROW)
    assert client.server_live()
    client.close()
    assert server.cancelled.wait(WAIT_S / 2)


FORK = """
import asyncio, os, sys
import trtserve_client.aio as aio
from trtserve_client import Client, ForkedClientError

async def main():
    clients = [Client(sys.argv[1]), aio.Client(sys.argv[1])]
    assert clients[0].server_live()
    child = os.fork()
    if not child:
        try:
            clients[0].server_live()
        except ForkedClientError as error:
            os.write(1, str(error).encode())
        try:
            clients[0].stream("echo", [])
        except ForkedClientError:
            os.write(1, b" stream")
        try:
            clients[1].server_live().send(None)
        except ForkedClientError:
            os.write(1, b" aio")
        clients[0].close()
        os._exit(0)
    os.waitpid(child, 0)
    assert clients[0].server_live()

asyncio.run(main())
os._exit(0)
"""


def test_a_fork_may_not_use_the_client(server: Any) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, server.url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 0, run.stderr
    assert "is used in its fork" in run.stdout and "make a client in each process" in run.stdout
    assert run.stdout.endswith(" stream aio")


A_CLIENT_IN_EACH = """
import os, sys
from trtserve_client import Client

client = Client(sys.argv[1])
assert client.server_live()
child = os.fork()
if not child:
    with Client(sys.argv[1]) as own:
        os._exit(int(own.infer("echo", {"x": [[7, 0]]}, timeout_s=10)["x"][0, 0]))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert client.server_live()
"""


def test_a_fork_with_a_client_of_its_own_is_served(server: Any) -> None:
    command = [sys.executable, "-W", "ignore", "-c", A_CLIENT_IN_EACH, server.url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 0, run.stderr


def test_model_config_is_the_protocols_message(client: Client) -> None:
    assert isinstance(client.model_config("echo"), oip.ModelConfig)
