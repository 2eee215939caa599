"""The pump with a queue that is a list: what it does with events that cannot be had."""

from __future__ import annotations

import asyncio
import threading
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from trtserve_server.transport.core import CompletionType
from trtserve_server.transport.pump import Pump

TIMEOUT = SimpleNamespace(completion_type=CompletionType.queue_timeout, success=False)
OVER = SimpleNamespace(completion_type=CompletionType.queue_timeout, success=True)


class Queue:
    """Gives what is put, or raises it where it is an exception; says that it is over once and for ever after None."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Any] = SimpleQueue()
        self.is_waited_for = threading.Event()

    def put(self, event: Any) -> None:
        self._events.put(event)

    def poll(self, deadline: float | None = None) -> Any:
        if deadline is None:
            self.is_waited_for.set()
        try:
            event = self._events.get(block=deadline is None)
        except Empty:
            return TIMEOUT
        if event is None:
            self._events.put(None)
            return OVER
        if isinstance(event, Exception):
            raise event
        return event


@pytest.mark.parametrize("waits", [False, True])
def test_an_event_that_cannot_be_read_is_logged_and_the_next_ones_are_handled(
    caplog: pytest.LogCaptureFixture, waits: bool
) -> None:
    async def run() -> list[int]:
        queue, handled, errors = Queue(), [], []
        pump = Pump(queue, errors.append, asyncio.get_running_loop())

        def event(number: int) -> Any:
            def tag(_: Any) -> None:
                handled.append(number)
                if number == 2:
                    queue.put(None)

            return SimpleNamespace(completion_type=CompletionType.operation_complete, success=True, tag=tag)

        events = [event(1), MemoryError(), event(2)]
        if waits:
            pump.start()
            await asyncio.to_thread(queue.is_waited_for.wait, 30)
        for each in events:
            queue.put(each)
        if not waits:
            pump.start()
        await asyncio.wait_for(pump.ended, 30)
        return handled

    assert asyncio.run(run()) == [1, 2]
    assert "could not be read" in caplog.text
