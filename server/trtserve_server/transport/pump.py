"""Brings the events of gRPC's completion queue to the event loop's thread, which fetches them itself while it can.

While events come, the loop's thread looks for more in each of its turns: no other thread is involved, and gRPC does
its reading and writing in there too. Once none has come for a while, a thread of ours waits for the next one, because
the loop cannot wait for gRPC and for everything else at once; that event costs a hand-over between two threads.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from trtserve_server.transport.core import CompletionType
from trtserve_server.transport.patience import Patience

log = logging.getLogger(__name__)

Event = Any
"""One of cygrpc's events: a call has come in, operations are done, the server has ended."""

_DONE, _TIMEOUT = CompletionType.operation_complete, CompletionType.queue_timeout

_MOST = 64
"""Events that are handled in one turn of the loop; its other callbacks wait for no more than these."""

_UNREAD = "an event of gRPC could not be read, such as a message for which there is no memory; its call gets no answer"


class Pump:
    """Calls the tag of each event of `queue` with it, on the loop's thread, until the queue is shut down and empty.

    `on_error` is called with a tag that has raised, while that exception is handled.
    """

    def __init__(self, queue: Any, on_error: Callable[[Any], None], loop: asyncio.AbstractEventLoop) -> None:
        self._poll = queue.poll
        self._on_error = on_error
        self._loop = loop
        self._patience = Patience()
        self._last = 0.0  # when the last event was handled
        self._may_wait = threading.Lock()  # held but for the moment in which the thread is told to wait
        self._may_wait.acquire()
        self._thread = threading.Thread(target=self._wait, name="grpc", daemon=True)
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done once the queue is empty for good; the thread has ended then, or is about to."""

    def start(self) -> None:
        """Begins. To be called on the loop's thread."""
        self._thread.start()
        self._turn()

    def _turn(self) -> None:
        """Handles what is there, and comes again; or leaves it to the thread to wait."""
        came = False
        try:
            for _ in range(_MOST):
                event = self._poll(0)
                if event.completion_type != _DONE:
                    break
                if not came:
                    came = True
                    self._patience.came(monotonic() - self._last)
                try:
                    event.tag(event)
                except Exception:
                    self._on_error(event.tag)
        except Exception:
            log.exception(_UNREAD)
            came = True
        now = monotonic()
        if came:
            self._last = now
        elif now - self._last > self._patience.seconds or _is_over(event):
            self._may_wait.release()  # once the queue is over, the thread hears so at once
            return
        self._loop.call_soon(self._turn)

    def _wait(self) -> None:
        """The thread: each time that it may, waits for an event and hands it over."""
        while True:
            self._may_wait.acquire()
            try:
                event = self._poll()
            except Exception:
                log.exception(_UNREAD)
                event = None
            is_over = event is not None and _is_over(event)
            try:
                self._loop.call_soon_threadsafe(self._woken, event)
            except RuntimeError:
                return  # the loop is closed: the server was forced to stop
            if is_over:
                return
            del event  # a call that it holds would not end before the next one comes

    def _woken(self, event: Event | None) -> None:
        if event is None:
            self._turn()
            return
        if _is_over(event):
            self.ended.set_result(None)
            return
        self._patience.came(monotonic() - self._last)
        try:
            event.tag(event)
        except Exception:
            self._on_error(event.tag)
        self._last = monotonic()
        self._turn()


def _is_over(event: Event) -> bool:
    """Whether the queue is shut down and empty. Older versions of grpcio call that a timeout that was a success."""
    kind = event.completion_type
    return kind not in (_DONE, _TIMEOUT) or (kind == _TIMEOUT and bool(event.success))
