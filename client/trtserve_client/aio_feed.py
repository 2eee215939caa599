"""The requests of an asynchronous stream on their way to gRPC, no more at a time than have a place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from trtserve_client.ledger import StreamInput, StreamLedger

Encode = Callable[[StreamInput], Awaitable[bytes]]
StreamInputs = Iterable[StreamInput] | AsyncIterable[StreamInput]

_CALL_IS_OVER = (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError)
"""What a write raises after the call's end; why it ended the reader learns from its status."""


async def write_requests(
    call: Any, ledger: StreamLedger, elements: AsyncIterator[StreamInput], encode: Encode, places: asyncio.Semaphore
) -> None:
    """Writes requests, no more at a time than have a place; ends with the elements, the call or what they raise."""
    try:
        while await places.acquire():
            message = await encode(await anext(elements))
            try:
                await call.write(message)
            except _CALL_IS_OVER:
                return
    except StopAsyncIteration:
        ledger.complete = True
    except asyncio.CancelledError as error:
        if task_is_cancelled():
            raise
        # It was the caller's iterable that gave up, not the reader of the results.
        ledger.fail(error)
    except Exception as error:
        ledger.fail(error)
    with suppress(*_CALL_IS_OVER):
        await call.done_writing()


def elements_of(iterable: StreamInputs) -> AsyncIterator[StreamInput]:
    """The elements of an iterable of either kind. Raises TypeError for what is none."""
    return aiter(iterable) if isinstance(iterable, AsyncIterable) else _each(iter(iterable))


def task_is_cancelled() -> bool:
    """Whether somebody cancelled the running task, which a CancelledError alone does not prove."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _each(elements: Iterator[StreamInput]) -> AsyncIterator[StreamInput]:
    for element in elements:
        yield element
