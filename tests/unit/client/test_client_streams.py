"""Streams of both clients: order, ids, errors, backpressure, leaving early, several at once, a server that stops."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from trtserve_client import (
    Client,
    InputError,
    Result,
    StreamError,
    aio,
)
from trtserve_protos import oip

WAIT_S = 10.0


def row(number: int) -> dict[str, np.ndarray]:
    return {"x": np.array([[number, 0]], np.float32)}


def rows(count: int) -> Iterator[dict[str, np.ndarray]]:
    return (row(number) for number in range(count))


def numbers(results: Iterable[Any]) -> list[int]:
    return [int(result["x"][0, 0]) for result in results]


Collect = Callable[..., None]


@pytest.mark.parametrize("in_flight", [1, 3, 100])
def test_results_come_in_the_order_of_the_inputs(server: Any, collect: Collect, in_flight: int) -> None:
    results: list[Result] = []
    collect(server, rows(20), results, in_flight=in_flight)
    assert numbers(results) == list(range(20))
    assert [result.id for result in results] == [str(number) for number in range(20)]
    assert server.calls.count("ModelStreamInfer") == server.calls.count("ModelMetadata") == 1


def test_nothing_in_gives_nothing_out(server: Any, collect: Collect) -> None:
    results: list[Result] = []
    collect(server, [], results)
    assert results == []


def test_callers_ids_come_back_and_may_repeat(server: Any, collect: Collect) -> None:
    results: list[Result] = []
    collect(server, [("a", row(0)), ("a", row(1)), row(2), ("", row(3))], results)
    assert [(result.id, number) for result, number in zip(results, numbers(results), strict=True)] == [
        ("a", 0),
        ("a", 1),
        ("2", 2),
        ("", 3),
    ]
    assert len({request.id for request in server.requests}) == 4


def test_settings_reach_every_request(server: Any, collect: Collect) -> None:
    collect(server, rows(2), [], version="1", outputs=["x"], parameters={"priority": 2}, metadata={"x-a": "1"})
    for request in server.requests:
        assert request.model_version == "1" and request.outputs[0].name == "x"
        assert request.parameters["priority"].int64_param == 2
    assert server.headers["x-a"] == "1"


def pairs_swapped(server: Any) -> Callable[..., Iterator[bytes]]:
    """Answers requests two by two, the later first."""

    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for first in requests:
            yield server.stream_answer(next(requests))
            yield server.stream_answer(first)

    return answer


def test_answers_out_of_order_are_put_in_order_or_not(server: Any, collect: Collect) -> None:
    server.answers["ModelStreamInfer"] = pairs_swapped(server)
    ordered: list[Result] = []
    collect(server, rows(6), ordered, in_flight=2)
    assert numbers(ordered) == [0, 1, 2, 3, 4, 5]
    as_ready: list[Result] = []
    collect(server, rows(6), as_ready, in_flight=2, ordered=False)
    assert numbers(as_ready) == [1, 0, 3, 2, 5, 4]
    assert [result.id for result in as_ready] == ["1", "0", "3", "2", "5", "4"]


def refusing(server: Any, refused: int) -> Callable[..., Iterator[bytes]]:
    """Echoes all but the request with the value `refused`, which gets an in-band error."""

    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            value = np.frombuffer(oip.ModelInferRequest.FromString(request).raw_input_contents[0], "<f4")[0]
            yield server.stream_error(request, "too bad") if value == refused else server.stream_answer(request)

    return answer


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_is_raised_in_its_place(server: Any, collect: Collect, ordered: bool) -> None:
    server.answers["ModelStreamInfer"] = refusing(server, 2)
    results: list[Result] = []
    with pytest.raises(StreamError, match="stream to model 'echo' request 'r2': too bad") as caught:
        collect(server, [(f"r{number}", row(number)) for number in range(5)], results, ordered=ordered)
    assert caught.value.request_id == "r2" and caught.value.details == "too bad"
    assert numbers(results) == [0, 1]


def test_an_error_can_be_returned_in_place_of_a_result(server: Any, collect: Collect) -> None:
    server.answers["ModelStreamInfer"] = refusing(server, 2)
    outcomes: list[Result | StreamError] = []
    collect(server, rows(5), outcomes, errors="return")
    assert isinstance(outcomes[2], StreamError) and outcomes[2].request_id == "2"
    assert numbers(outcomes[:2] + outcomes[3:]) == [0, 1, 3, 4]


def test_an_unfit_input_comes_after_the_results_before_it(server: Any, collect: Collect) -> None:
    results: list[Result] = []
    with pytest.raises(InputError, match=r"request 'bad': input 'x': shape \[2\] given"):
        collect(server, [row(0), row(1), ("bad", {"x": np.zeros(2, np.float32)}), row(3)], results)
    assert numbers(results) == [0, 1]
    with pytest.raises(InputError, match="element 0 of the stream: int given"):
        collect(server, [5], results)


def test_what_the_inputs_raise_comes_after_the_results_before_it(server: Any, collect: Collect) -> None:
    def elements() -> Iterator[dict[str, np.ndarray]]:
        yield from rows(3)
        raise LookupError("no more")

    results: list[Result] = []
    with pytest.raises(LookupError, match="no more"):
        collect(server, elements(), results)
    assert numbers(results) == [0, 1, 2]


def test_settings_are_checked_before_anything_is_sent(server: Any, collect: Collect) -> None:
    for settings in ({"in_flight": 0}, {"errors": "ignore"}):
        with pytest.raises(Exception, match=f"{next(iter(settings))}=.* wanted"):
            collect(server, rows(1), [], **settings)
    with pytest.raises(TypeError, match="not iterable"):
        collect(server, 5, [])
    assert not server.calls


@pytest.mark.parametrize("in_flight", [1, 4])
def test_no_more_is_taken_than_may_be_in_flight(server: Any, collect: Collect, in_flight: int) -> None:
    taken: list[Result] = []
    most = 0

    def elements() -> Iterator[dict[str, np.ndarray]]:
        nonlocal most
        for number in range(40):
            most = max(most, number + 1 - len(taken))
            yield row(number)

    collect(server, elements(), taken, in_flight=in_flight)
    assert len(taken) == 40
    # The result that is just being handed over has left its place and is not in `taken` yet.
    assert most <= in_flight + 1


def test_a_window_is_filled_before_the_first_answer(server: Any, collect: Collect) -> None:
    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        held = [next(requests) for _ in range(4)]
        yield from map(server.stream_answer, reversed(held))
        assert list(requests) == []

    server.answers["ModelStreamInfer"] = answer
    results: list[Result] = []
    collect(server, rows(4), results, in_flight=4)
    assert numbers(results) == [0, 1, 2, 3]


def test_a_reader_that_pauses_holds_the_iterable(client: Client, server: Any) -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            received.put(request)
            yield server.stream_answer(request)

    server.answers["ModelStreamInfer"] = answer
    pulled: list[int] = []

    def elements() -> Iterator[dict[str, np.ndarray]]:
        for number in range(1000):
            pulled.append(number)
            yield row(number)

    stream = client.stream("echo", elements(), in_flight=3)
    assert not pulled
    next(stream)
    for _ in range(4):
        received.get(timeout=WAIT_S)
    # One was taken, so four were let go; the fifth cannot be before the next is asked for.
    assert pulled == [0, 1, 2, 3]
    next(stream)
    received.get(timeout=WAIT_S)
    assert pulled == [0, 1, 2, 3, 4]
    stream.close()


def test_a_stream_may_feed_on_its_own_results(client: Client) -> None:
    results: queue.SimpleQueue[int] = queue.SimpleQueue()

    def elements() -> Iterator[dict[str, np.ndarray]]:
        value = 1
        while value < 100:
            yield row(value)
            value = 2 * results.get(timeout=WAIT_S)

    seen = []
    for result in client.stream("echo", elements()):
        seen += numbers([result])
        results.put(seen[-1])
    assert seen == [1, 2, 4, 8, 16, 32, 64]


def test_an_async_iterable_feeds_an_async_stream(server: Any) -> None:
    async def run() -> list[int]:
        results: asyncio.Queue[int] = asyncio.Queue()

        async def elements() -> AsyncIterator[tuple[str, dict[str, np.ndarray]]]:
            value = 1
            while value < 100:
                yield str(value), row(value)
                value = 2 * await results.get()

        seen = []
        async with aio.Client(server.url) as client:
            async for result in client.stream("echo", elements()):
                assert result.id == str(numbers([result])[0])
                seen += numbers([result])
                results.put_nowait(seen[-1])
        return seen

    assert asyncio.run(run()) == [1, 2, 4, 8, 16, 32, 64]


def test_several_streams_run_at_once(client: Client) -> None:
    streams = [client.stream("echo", rows(10), in_flight=2) for _ in range(4)]
    together = [numbers(results) for results in zip(*streams, strict=True)]
    assert together == [[number] * 4 for number in range(10)]


def test_several_async_streams_run_at_once(server: Any) -> None:
    async def run() -> list[list[int]]:
        async with aio.Client(server.url) as client:

            async def one() -> list[int]:
                return numbers([result async for result in client.stream("echo", rows(10), in_flight=2)])

            return await asyncio.gather(*(one() for _ in range(4)))

    assert asyncio.run(run()) == [list(range(10))] * 4
