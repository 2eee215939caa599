"""The two kinds of load: a closed loop, where answers trigger requests, and an open loop, where the clock does."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Protocol

import numpy as np

from trtserve_client.load.jobs import ClosedLoad, Finished, Job, OpenLoad, Window
from trtserve_client.load.recorder import Recorder
from trtserve_client.load.senders import Sender
from trtserve_protos.timing import Timing

_LATENESS = 0.1
"""An open loop that falls behind goes on this part of its length beyond its end, then counts the rest as unsent."""

_LEAST_WAIT_S = 1e-3


class Drive(Protocol):
    """A load under way."""

    def start(self) -> None:
        """Begins, at the window's beginning; returns at once."""
        ...

    def stop(self) -> None:
        """Sends nothing more."""
        ...

    def wait(self, seconds: float) -> bool:
        """Waits until all is sent and answered; whether it is."""
        ...

    @property
    def sending(self) -> bool:
        """Whether requests are still to be sent."""
        ...

    def finished(self) -> Finished:
        """What the load itself has to say at its end."""
        ...


def make_drive(job: Job, sender: Sender, recorder: Recorder) -> Drive:
    """The drive for the job's load."""
    if isinstance(job.load, ClosedLoad):
        return ClosedLoop(job.load, job.window, sender, recorder)
    return OpenLoop(job.load, job.window, sender, recorder)


class _Counted:
    """Counts requests under way from any thread, and knows when the last has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._closed = False
        self.all_ended = threading.Event()

    @property
    def count(self) -> int:
        return self._count

    def begin(self, number: int = 1) -> None:
        with self._lock:
            self._count += number

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._closed and not self._count:
                self.all_ended.set()

    def close(self) -> None:
        """Nothing begins from now on."""
        with self._lock:
            self._closed = True
            if not self._count:
                self.all_ended.set()


class ClosedLoop:
    """Keeps `concurrency` requests under way; each answer sends the next, on the thread that brought it."""

    def __init__(self, load: ClosedLoad, window: Window, sender: Sender, recorder: Recorder) -> None:
        self._load, self._window = load, window
        self._sender, self._recorder = sender, recorder
        self._numbers = itertools.count()
        self._measured = itertools.count()
        self._slots = _Counted()
        self._stopped = False

    def start(self) -> None:
        """See Drive."""
        self._slots.begin(self._load.concurrency)
        self._slots.close()
        threading.Thread(target=self._begin, daemon=True).start()

    def stop(self) -> None:
        """See Drive."""
        self._stopped = True

    def wait(self, seconds: float) -> bool:
        """See Drive."""
        return self._slots.all_ended.wait(seconds)

    @property
    def sending(self) -> bool:
        """See Drive."""
        return not self._stopped and not self._slots.all_ended.is_set() and time.monotonic() < self._window.ends

    def finished(self) -> Finished:
        """See Drive."""
        return Finished(np.empty(0), unanswered=self._slots.count)

    def _begin(self) -> None:
        time.sleep(max(0.0, self._window.begins - time.monotonic()))
        for _ in range(self._load.concurrency):
            self._next()

    def _next(self) -> None:
        sent = time.monotonic()
        if self._stopped or sent >= self._window.ends or self._counted_out(sent):
            self._slots.end()
            return
        self._sender.send(
            next(self._numbers), lambda status, detail, timing=None: self._done(sent, status, detail, timing)
        )

    def _done(self, sent: float, status: str, detail: str, timing: Timing | None) -> None:
        now = time.monotonic()
        # With a count, the requests that are counted are those sent in the window; the rest is warm-up.
        belongs = now if not self._load.count or sent >= self._window.measured else sent
        self._recorder.add(belongs, now - sent, now, status, detail, timing)
        self._next()

    def _counted_out(self, sent: float) -> bool:
        count = self._load.count
        return bool(count) and sent >= self._window.measured and next(self._measured) >= count


class OpenLoop:
    """Sends at the given times whether answers come or not; latency counts from the time that was given."""

    def __init__(self, load: OpenLoad, window: Window, sender: Sender, recorder: Recorder) -> None:
        self._load, self._window = load, window
        self._sender, self._recorder = sender, recorder
        self._places = threading.Semaphore(load.max_in_flight)
        self._counted = _Counted()
        self._lags: list[float] = []
        self._unsent = 0
        self._stop = threading.Event()
        self._sent_all = threading.Event()

    def start(self) -> None:
        """See Drive."""
        threading.Thread(target=self._pace, daemon=True).start()

    def stop(self) -> None:
        """See Drive."""
        self._stop.set()
        self._places.release()

    def wait(self, seconds: float) -> bool:
        """See Drive."""
        return self._counted.all_ended.wait(seconds)

    @property
    def sending(self) -> bool:
        """See Drive."""
        return not self._sent_all.is_set()

    def finished(self) -> Finished:
        """See Drive."""
        return Finished(np.array(self._lags), self._unsent, self._counted.count)

    def _pace(self) -> None:
        begins, measured, ends = self._window.begins, self._window.measured, self._window.ends
        too_late = ends + _LATENESS * (ends - measured)
        held_up = False
        for number, due in enumerate((begins + self._load.offsets).tolist()):
            ahead = due - time.monotonic()
            if ahead > 0:
                held_up = False
                self._stop.wait(ahead)
            if not self._places.acquire(blocking=False):
                held_up = True
                # A server that hangs gives no place back.
                self._places.acquire(timeout=max(0.0, too_late - time.monotonic()) + _LEAST_WAIT_S)
            now = time.monotonic()
            if self._stop.is_set():
                break
            if now > too_late:
                self._unsent = len(self._load.offsets) - number
                break
            if not held_up and due >= measured:
                # What waited for a place, and what came due behind it, the server held up and not this process.
                self._lags.append(now - due)
            self._send(number, due)
        self._sent_all.set()
        self._counted.close()

    def _send(self, number: int, due: float) -> None:
        def done(status: str, detail: str, timing: Timing | None = None) -> None:
            now = time.monotonic()
            self._places.release()
            self._recorder.add(due, now - due, now, status, detail, timing)
            self._counted.end()

        self._counted.begin()
        self._sender.send(number, done)
