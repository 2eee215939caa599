"""The answers of one call that gives many: sent one by one as they complete or in order, and never too many at once.

From its arrival until its answer is sent a request holds a place of the window. A caller that does not read its
answers lets the sending wait, so places run out and nothing more is taken from it: what is held for it is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trtserve_server.transport.call import Call

Lane = deque["Place"]
"""Places whose answers go out in the order of their entries."""


class Place:
    """Holds a place of the window for one request; in a lane it also holds its answer until those before are there."""

    __slots__ = ("answer", "lane")

    def __init__(self, lane: Lane | None) -> None:
        self.lane = lane
        self.answer: bytes | Exception | None = None
        if lane is not None:
            lane.append(self)


class Answers:
    """The window of one call. `held` counts the places that are taken.

    `on_room` is called when a place has become free, `on_end` once: with None when no more places will be taken and
    all answers are sent, or with the first answer that is an exception.
    """

    def __init__(
        self, call: Call, window: int, on_room: Callable[[], None], on_end: Callable[[Exception | None], None]
    ) -> None:
        self._call = call
        self._window = window
        self._on_room = on_room
        self._on_end = on_end
        self._ready: deque[bytes | Exception] = deque()
        self._is_sending = False
        self._is_closed = False
        self.held = 0

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return self.held >= self._window

    def take(self, lane: Lane | None = None) -> Place:
        """Takes a place, which one `put` gives back."""
        self.held += 1
        return Place(lane)

    def put(self, place: Place, answer: bytes | Exception) -> None:
        """The answer for a place: bytes to send, or what ends the call."""
        lane = place.lane
        if lane is None:
            self._ready.append(answer)
        else:
            place.answer = answer
            while lane and (due := lane[0].answer) is not None:
                self._ready.append(due)
                lane.popleft()
        self._send()

    def close(self) -> None:
        """Says that no more places will be taken."""
        self._is_closed = True
        self._send()

    def abandon(self) -> None:
        """Forgets what is not sent, for the call is over: at once, not when Python next looks for cycles."""
        self._ready.clear()
        self._on_room = self._on_end = _nothing

    def _send(self) -> None:
        if self._is_sending:
            return
        if self._ready:
            answer = self._ready.popleft()
            if isinstance(answer, Exception):
                self._on_end(answer)
            else:
                self._is_sending = True
                self._call.send(answer, self._sent, more=bool(self._ready))
        elif self._is_closed and not self.held:
            self._on_end(None)

    def _sent(self, success: bool) -> None:
        self._is_sending = False
        if success:  # otherwise the caller is gone, and the call says so itself
            self.held -= 1
            self._send()
            self._on_room()


def _nothing(_: object = None) -> None:
    pass
