"""What only the asynchronous client has to get right: its loop, cancellation, and grpc.aio's account of a status."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from trtserve_client import (
    ChannelOptions,
    ClientError,
    ClosedClientError,
    DeadlineExceeded,
    InputError,
    ModelIndex,
    NotFound,
    Unavailable,
    aio,
)
from trtserve_client.aio_answers import Answers

ROW = {"x": np.array([[1, 2]], np.float32)}
WAIT_S = 10.0


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, WAIT_S))


def test_every_call(server: Any) -> None:
    async def main() -> None:
        async with aio.Client(server.url, metadata={"x-a": "1"}) as client:
            result = await client.infer("echo", ROW, id="a", outputs=["x"])
            assert result.id == "a" and result["x"].tolist() == [[1, 2]]
            assert server.headers["x-a"] == "1"
            assert await client.server_live() and await client.server_ready()
            assert await client.model_ready("echo") and not await client.model_ready("other")
            assert (await client.server_metadata()).name == "fake"
            assert (await client.model_metadata("echo")).inputs[0].name == "x"
            assert (await client.model_config("echo")).max_batch_size == 8
            assert (await client.model_statistics("echo"))[0].inference_count == 7
            assert await client.repository_index(ready=True) == [ModelIndex("echo", "1", "READY", "")]
            assert await client.health() == "SERVING"

    run(main())


def test_errors_and_checks_are_those_of_the_twin(server: Any) -> None:
    async def main() -> None:
        async with aio.Client(server.url) as client:
            with pytest.raises(NotFound, match=f"{server.url} model 'nope': NOT_FOUND: no model nope"):
                await client.infer("nope", ROW)
            await client.infer("echo", {"x": [[1, 2]]})
            server.serve("echo", [("x", "INT64", [-1])])
            assert (await client.infer("echo", {"x": [7]}))["x"].dtype == np.int64
            with pytest.raises(InputError, match=r"float32 \(FP32\) given, int64 \(INT64\) wanted"):
                await client.infer("echo", ROW)
            assert (await client.infer("echo", ROW, check=False))["x"].tolist() == [[1, 2]]
            server.answers["ModelInfer"] = server.wait_for_cancel
            with pytest.raises(DeadlineExceeded):
                await client.infer("echo", {"x": [7]}, timeout_s=0.05)
        options = ChannelOptions(first_backoff_ms=10, max_backoff_ms=10)
        async with aio.Client("127.0.0.1:1", options=options) as lonely:
            with pytest.raises(Unavailable):
                await lonely.server_live()

    run(main())


def test_calls_run_side_by_side(server: Any) -> None:
    async def main() -> list[float]:
        async with aio.Client(server.url) as client:
            results = await asyncio.gather(*(client.infer("echo", {"x": [[n, 0]]}) for n in range(50)))
        return [float(result["x"][0, 0]) for result in results]

    assert run(main()) == list(range(50))


def test_a_client_needs_a_running_loop() -> None:
    with pytest.raises(ClientError, match="inside a running event loop"):
        aio.Client()


def arrived(handler: Callable[..., Any]) -> tuple[threading.Event, Callable[..., Any]]:
    """An event that says that the call is at the server, and the handler that sets it."""
    event = threading.Event()

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        event.set()
        return handler(request, context)

    return event, answer


def test_a_cancelled_task_cancels_its_call(server: Any) -> None:
    event, server.answers["ServerLive"] = arrived(server.wait_for_cancel)

    async def main() -> None:
        async with aio.Client(server.url) as client:
            task = asyncio.create_task(client.server_live())
            assert await asyncio.to_thread(event.wait, WAIT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.cancelled.wait, WAIT_S)
            assert await client.server_ready()

    run(main())


def test_closing_ends_running_calls_without_cancelling_their_tasks(server: Any) -> None:
    event, server.answers["ServerLive"] = arrived(server.wait_for_cancel)

    async def main() -> None:
        client = aio.Client(server.url)
        task = asyncio.create_task(client.server_live())
        assert await asyncio.to_thread(event.wait, WAIT_S)
        await client.close()
        with pytest.raises(ClosedClientError):
            await task
        await client.close()
        with pytest.raises(ClosedClientError):
            await client.server_live()
        with pytest.raises(ClosedClientError):
            client.stream("echo", [])

    run(main())


class ScriptedCall:
    """As much of a grpc.aio call as Answers asks: one answer, then an error; statuses that replace each other."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.error = error
        self.status = (grpc.StatusCode.OK, "")
        self.callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    def end(self, code: grpc.StatusCode, details: str) -> None:
        self.status = (code, details)
        for callback in self.callbacks:
            callback(self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"answer"
        raise self.error

    async def code(self) -> grpc.StatusCode:
        return self.status[0]

    async def details(self) -> str:
        return self.status[1]


REPLACEMENT = (grpc.StatusCode.INTERNAL, "Internal error from Core")
SERVERS_OWN = (grpc.StatusCode.ABORTED, "enough")


def rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


@pytest.mark.parametrize("first", [SERVERS_OWN, REPLACEMENT], ids=["replaced after", "replaced before"])
def test_the_servers_status_is_kept_from_grpcs_own(first: tuple[grpc.StatusCode, str]) -> None:
    async def main() -> None:
        call = ScriptedCall(rpc_error(*REPLACEMENT))
        answers = Answers(call)
        call.end(*first)
        call.end(*(REPLACEMENT if first is SERVERS_OWN else SERVERS_OWN))
        assert await answers.next() == b"answer"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers.next()
        assert (caught.value.code(), caught.value.details()) == SERVERS_OWN

    run(main())


def test_an_end_that_was_ok_is_no_error() -> None:
    async def main() -> None:
        call = ScriptedCall(rpc_error(*REPLACEMENT))
        answers = Answers(call)
        call.end(grpc.StatusCode.OK, "")
        assert [await answers.next(), await answers.next()] == [b"answer", None]

    run(main())


@pytest.mark.parametrize("status", [SERVERS_OWN, REPLACEMENT], ids=["another", "no other comes"])
def test_errors_that_are_real_stay(monkeypatch: pytest.MonkeyPatch, status: tuple[grpc.StatusCode, str]) -> None:
    monkeypatch.setattr("trtserve_client.aio_answers._WAIT_S", 0.01)

    async def main() -> None:
        error = rpc_error(*status)
        answers = Answers(ScriptedCall(error))
        await answers.next()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers.next()
        assert caught.value is error

    run(main())
