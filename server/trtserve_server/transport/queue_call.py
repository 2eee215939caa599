"""A call on the completion queue. Each of its operations is done when an event of the queue says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc

from trtserve_server.transport.call import Metadata
from trtserve_server.transport.core import (
    ReceiveCloseOnServerOperation,
    ReceiveMessageOperation,
    SendInitialMetadataOperation,
    SendMessageOperation,
    SendStatusFromServerOperation,
)
from trtserve_server.transport.pump import Event

_FOR_EVER_S = 1e12
"""A deadline later than this, in seconds since 1970, is how gRPC says that there is none."""

_BUFFER_HINT = 1
"""A message with this flag may stay in gRPC's buffer, 64 KiB, until one without it comes: GRPC_WRITE_BUFFER_HINT."""

_REFUSED = "gRPC refused an operation of a call, of which no event will tell: another of its kind is under way"

# One object may be under way for many calls only because these two need no memory of gRPC's: metadata and details that
# are not empty would be freed by the call that is done first.
_INITIAL_METADATA = SendInitialMetadataOperation(None, 0)
_STATUS_OK = SendStatusFromServerOperation(None, grpc.StatusCode.OK.value[0], b"", 0)


class QueueCall:
    """See Call. `event` is that of its coming in."""

    __slots__ = (
        "_call",
        "_deadline",
        "_due",
        "_on_done",
        "_on_message",
        "_on_sent",
        "_opened",
        "_watched",
        "is_over",
        "metadata",
        "on_cancel",
    )

    def __init__(self, event: Event) -> None:
        self._call = event.call
        self._deadline: float = event.call_details.deadline
        self.metadata: Metadata = event.invocation_metadata
        self.is_over = False
        self.on_cancel: Callable[[], object] | None = None
        self._on_done: list[Callable[[Any], None]] = []
        self._on_message: Callable[[bytes | None], None] = _nothing
        self._on_sent: Callable[[bool], None] = _nothing
        self._opened = False  # initial metadata has been sent
        self._watched = False
        self._due = 0  # operations that are not done

    def watch(self) -> None:
        """Calls `on_cancel` from now on. It costs an event, so a call that is ended at once goes without it."""
        self._watched = True
        self._start(self._closed, ReceiveCloseOnServerOperation(0))

    def time_remaining(self) -> float | None:
        """See Call."""
        deadline = self._deadline
        return None if deadline > _FOR_EVER_S else max(0.0, deadline - time.time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """See Call."""
        self._on_done.append(callback)

    def receive(self, on_message: Callable[[bytes | None], None]) -> None:
        """See Call."""
        if self.is_over:  # its queue may be shut down, and gRPC ends the process that begins an operation there
            return
        self._on_message = on_message
        self._start(self._received, ReceiveMessageOperation(0))

    def send(self, message: bytes, on_sent: Callable[[bool], None], *, more: bool = False) -> None:
        """See Call."""
        if self.is_over:
            return
        self._on_sent = on_sent
        # What the call begins with is not held back: its operation would not be done before it is written.
        operation = SendMessageOperation(message, _BUFFER_HINT if more and self._opened else 0)
        if self._opened:
            self._start(self._sent, operation)
        else:
            self._opened = True
            self._start(self._sent, _INITIAL_METADATA, operation)

    def answer(self, message: bytes) -> None:
        """See Call."""
        if not self.is_over:
            self._end(_INITIAL_METADATA, SendMessageOperation(message, 0), _STATUS_OK)

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "", trailers: Metadata = ()) -> None:
        """See Call."""
        if not self.is_over:
            status = SendStatusFromServerOperation(trailers or None, code.value[0], details.encode(), 0)
            self._end(*(() if self._opened else (_INITIAL_METADATA,)), status)

    def _end(self, *operations: Any) -> None:
        self.is_over = True
        self.on_cancel = None  # it may hold the call, and what goes in circles stays until Python looks for it
        if not self._watched:
            operations += (ReceiveCloseOnServerOperation(0),)  # each call has to have one
        if self._call.start_server_batch(operations, self._done):
            raise RuntimeError(_REFUSED)
        self._due += 1

    def _start(self, on_done: Callable[[Event], None], *operations: Any) -> None:
        if self._call.start_server_batch(operations, on_done):
            raise RuntimeError(_REFUSED)
        self._due += 1

    def _closed(self, event: Event) -> None:
        """The stream below is closed: the status has been sent, or the caller is gone."""
        try:
            if not self.is_over:
                self.is_over = True
                on_cancel, self.on_cancel = self.on_cancel, None
                if on_cancel is not None:
                    on_cancel()
        finally:
            self._done(event)

    def _received(self, event: Event) -> None:
        on_message, self._on_message = self._on_message, _nothing
        try:
            on_message(event.batch_operations[0].message())
        finally:
            self._done(event)

    def _sent(self, event: Event) -> None:
        on_sent, self._on_sent = self._on_sent, _nothing
        try:
            on_sent(event.success)
        finally:
            self._done(event)

    def _done(self, _: Event) -> None:
        self._due -= 1
        if not self._due:
            for callback in self._on_done:
                callback(self)


def _nothing(_: object) -> None:
    pass
