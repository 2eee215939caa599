"""Brings the events of gRPC's completion queue to the event loop's thread, which fetches them itself while it can.

While events come, the loop's thread looks for more in each of its turns: no other thread is involved, and gRPC does
its reading and writing in there too. Once none has come for a while, a thread of ours waits for the next one, because
the loop cannot wait for gRPC and for everything else at once; that event costs a hand-over between two threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from trtserve_server.transport.core import CompletionType

Event = Any
"""One of cygrpc's events: a call has come in, operations are done, the server has ended."""

_DONE, _TIMEOUT = CompletionType.operation_complete, CompletionType.queue_timeout

_MOST = 64
"""Events that are handled in one turn of the loop; its other callbacks wait for no more than these."""

_PATIENT_S, _HASTY_S = 200e-6, 20e-6
"""How long the loop's thread looks in vain before the other thread waits: long where that would have been enough the
last time. Looking costs CPU that others may need, and not looking a hand-over.
"""


class Pump:
    """Calls the tag of each event of `queue` with it, on the loop's thread, until the queue is shut down and empty.

    `on_error` is called with a tag that has raised, while that exception is handled.
    """

    def __init__(self, queue: Any, on_error: Callable[[Any], None], loop: asyncio.AbstractEventLoop) -> None:
        self._poll = queue.poll
        self._on_error = on_error
        self._loop = loop
        self._patience_s = _HASTY_S
        self._last = 0.0  # when an event was last there
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
        for _ in range(_MOST):
            event = self._poll(0)
            if event.completion_type != _DONE:
                break
            try:
                event.tag(event)
            except Exception:
                self._on_error(event.tag)
            came = True
        now = monotonic()
        if came:
            self._last = now
        elif now - self._last > self._patience_s or _is_over(event):
            self._may_wait.release()  # once the queue is over, the thread hears so at once
            return
        self._loop.call_soon(self._turn)

    def _wait(self) -> None:
        """The thread: each time that it may, waits for an event and hands it over."""
        while True:
            self._may_wait.acquire()
            event = self._poll()
            is_over = _is_over(event)
            try:
                self._loop.call_soon_threadsafe(self._woken, event)
            except RuntimeError:
                return  # the loop is closed: the server was forced to stop
            if is_over:
                return
            del event  # a call that it holds would not end before the next one comes

    def _woken(self, event: Event) -> None:
        if _is_over(event):
            self.ended.set_result(None)
            return
        now = monotonic()
        self._patience_s = _PATIENT_S if now - self._last < _PATIENT_S else _HASTY_S
        self._last = now
        try:
            event.tag(event)
        except Exception:
            self._on_error(event.tag)
        self._turn()


def _is_over(event: Event) -> bool:
    """Whether the queue is shut down and empty. Older versions of grpcio call that a timeout that was a success."""
    kind = event.completion_type
    return kind not in (_DONE, _TIMEOUT) or (kind == _TIMEOUT and bool(event.success))
