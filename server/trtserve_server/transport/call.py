"""One gRPC call as services see it, whatever carries it: functions that are called when something has come or gone.

Everything happens on the event loop's thread. A function that raises is a mistake of the service: it is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

Metadata = Sequence[tuple[str, str | bytes]]


class Call(Protocol):
    """A call from its beginning to its end. What is said to a call that is over does nothing and calls nothing."""

    on_cancel: Callable[[], object] | None
    """Called once where the caller is gone before the call has been given its end."""

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more: the call has been given its end, or its caller is gone."""
        ...

    @property
    def metadata(self) -> Metadata:
        """What the call began with."""
        ...

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none. Follows the wall clock, which may be set."""
        ...

    def receive(self, on_message: Callable[[bytes | None], None]) -> None:
        """Calls once, with the next message, or None where no more will come. One at a time.

        Of a caller who is gone both `on_cancel` and this may tell, in any order, as long as the call is not over.
        """
        ...

    def send(self, message: bytes, on_sent: Callable[[bool], None], *, more: bool = False) -> None:
        """Sends a message and calls with whether the transport has taken it. One at a time.

        With `more` another one follows as soon as it is taken, and the two may leave together.
        """
        ...

    def answer(self, message: bytes) -> None:
        """Ends a call of which nothing has been sent with its one answer."""
        ...

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "", trailers: Metadata = ()) -> None:
        """Ends the call with a status. Nothing may be on its way."""
        ...

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls when nothing is under way any more: what was sent has left, or the caller is gone."""
        ...


@dataclass(frozen=True)
class Unary:
    """Handles calls that begin with their one message; `begin` has not to answer before it returns."""

    begin: Callable[[bytes, Call], None]


@dataclass(frozen=True)
class Streaming:
    """Handles calls that receive their messages themselves."""

    begin: Callable[[Call], None]


Handlers = Mapping[str, Unary | Streaming]
"""By the method's path, /PACKAGE.SERVICE/METHOD."""


class GrpcServer(Protocol):
    """A server of such calls. Made, started and stopped on one asyncio loop."""

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Binds an address; gives its port. Raises RuntimeError."""
        ...

    async def start(self) -> None:
        """Takes calls from now on."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Takes no more calls, lets those that are open end within the time, and cancels what is left."""
        ...
