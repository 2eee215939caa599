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


class Requests:
    """The requests of one stream: written one by one, each when there is a free place."""

    def __init__(
        self, elements: AsyncIterator[StreamInput], encode: Encode, ledger: StreamLedger, in_flight: int
    ) -> None:
        self._elements = elements
        self._encode = encode
        self._ledger = ledger
        self._places = asyncio.Semaphore(in_flight)

    async def write_to(self, call: Any) -> None:
        """Ends with the elements, with the call, or with what the elements raise, which the ledger is told."""
        try:
            while await self._places.acquire():
                message = await self._encode(await anext(self._elements))
                try:
                    await call.write(message)
                except _CALL_IS_OVER:
                    return
        except StopAsyncIteration:
            self._ledger.complete = True
        except asyncio.CancelledError as error:
            if task_is_cancelled():
                raise
            # It was the caller's iterable that gave up, not the reader of the results.
            self._ledger.fail(error)
        except Exception as error:
            self._ledger.fail(error)
        with suppress(*_CALL_IS_OVER):
            await call.done_writing()

    def free_place(self) -> None:
        """Lets one more request go; to be called for each result that the reader takes."""
        self._places.release()


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
