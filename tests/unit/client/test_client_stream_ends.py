"""How streams of both clients end: left early, closed, cancelled, late, or by a server that stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
import pytest

from trtserve_client import (
    Client,
    ClosedClientError,
    DeadlineExceeded,
    Result,
    StreamError,
    Unavailable,
    aio,
)

WAIT_S = 10.0


def row(number: int) -> dict[str, np.ndarray]:
    return {"x": np.array([[number, 0]], np.float32)}


def rows(count: int) -> Iterator[dict[str, np.ndarray]]:
    return (row(number) for number in range(count))


def numbers(results: Iterable[Any]) -> list[int]:
    return [int(result["x"][0, 0]) for result in results]


Collect = Callable[..., None]


def endless(event: threading.Event) -> Iterator[dict[str, np.ndarray]]:
    """Inputs without end; `event` is set when the generator is given up."""
    number = 0
    try:
        while True:
            yield row(number)
            number += 1
    finally:
        event.set()


def test_leaving_the_loop_cancels_the_call(client: Client, server: Any) -> None:
    given_up = threading.Event()
    for result in client.stream("echo", endless(given_up)):
        if numbers([result]) == [3]:
            break
    del result
    assert server.cancelled.wait(WAIT_S)
    assert given_up.wait(WAIT_S)
    assert client.server_live()


@pytest.mark.parametrize("close", [True, False], ids=["aclosing", "break alone"])
def test_leaving_the_async_loop_cancels_the_call(server: Any, close: bool) -> None:
    given_up = threading.Event()

    async def read(stream: Any) -> None:
        async for result in stream:
            if numbers([result]) == [3]:
                break

    async def run() -> None:
        async with aio.Client(server.url) as client:
            if close:
                async with aclosing(client.stream("echo", endless(given_up))) as stream:
                    await read(stream)
            else:
                await read(client.stream("echo", endless(given_up)))
            assert await asyncio.to_thread(server.cancelled.wait, WAIT_S)
            assert await asyncio.to_thread(given_up.wait, WAIT_S)
            assert await client.server_live()

    asyncio.run(run())


def test_a_stream_is_never_tried_again(server: Any, collect: Collect) -> None:
    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield server.stream_answer(next(requests))
        context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    server.answers["ModelStreamInfer"] = answer
    results: list[Result] = []
    with pytest.raises(Unavailable, match="model 'echo': UNAVAILABLE: going down"):
        collect(server, rows(1000), results)
    assert numbers(results) == [0] and server.calls.count("ModelStreamInfer") == 1


@pytest.mark.parametrize("answered", [0, 1])
def test_a_server_that_ends_early_is_told(server: Any, collect: Collect, answered: int) -> None:
    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        first = next(requests)
        if answered:
            yield server.stream_answer(first)

    server.answers["ModelStreamInfer"] = answer
    with pytest.raises(StreamError, match=r"the server ended it (before|with 1 requests unanswered)"):
        collect(server, rows(1000), [], in_flight=1)


def test_a_deadline_ends_a_stream(server: Any, collect: Collect) -> None:
    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        server.wait_for_cancel(requests, context)
        yield from ()

    server.answers["ModelStreamInfer"] = answer
    with pytest.raises(DeadlineExceeded):
        collect(server, rows(1000), [], timeout_s=0.05)


def test_closing_the_client_ends_its_streams(server: Any) -> None:
    client = Client(server.url)
    stream = client.stream("echo", endless(threading.Event()))
    next(stream)
    client.close()
    with pytest.raises(ClosedClientError):
        list(stream)


def test_closing_the_async_client_ends_its_streams(server: Any) -> None:
    async def run() -> None:
        client = aio.Client(server.url)
        stream = client.stream("echo", endless(threading.Event()))
        await anext(stream)
        await client.close()
        with pytest.raises(ClosedClientError):
            _ = [result async for result in stream]

    asyncio.run(run())


def test_a_cancelled_reader_ends_its_stream(server: Any) -> None:
    async def run() -> None:
        async with aio.Client(server.url) as client:
            first = asyncio.Event()

            async def read() -> None:
                async for _ in client.stream("echo", never_ending(first)):
                    first.set()

            reader = asyncio.create_task(read())
            await asyncio.wait_for(first.wait(), WAIT_S)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert await asyncio.to_thread(server.cancelled.wait, WAIT_S)

    async def never_ending(first: asyncio.Event) -> AsyncIterator[dict[str, np.ndarray]]:
        yield row(0)
        await asyncio.Event().wait()

    asyncio.run(run())
