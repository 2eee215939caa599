"""trtserve-load's workers as the bench's load, from a process of their own: closed loops, and one that overloads."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from types import TracebackType

from tests.bench.load import Load
from trtserve_client import ChannelOptions
from trtserve_client.load.arrivals import offsets_of
from trtserve_client.load.collector import Collector
from trtserve_client.load.fleet import Fleet, monotonic_start
from trtserve_client.load.jobs import ClosedLoad, Connection, Job, OpenLoad, Window

_BUCKETS = 30
_TIMEOUT_S = 30.0
_MOST_IN_FLIGHT = 100_000


class Harness:
    """One worker for each server, message and way, started when it is first needed. Use it in a `with`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._fleets: dict[tuple[str, bytes, bool, float], Fleet] = {}

    def closed_loop(self, url: str, data: bytes, concurrency: int, seconds: float, *, stream: bool) -> Load:
        """See load.closed_loop."""
        fleet = self._fleet(url, data, stream=stream)
        window = _window(seconds / 5, seconds)
        collector = Collector(window)
        fleet.run([Job(window, ClosedLoad(concurrency, 0))], collector.add, threading.Event())
        latencies = collector.latencies()
        if collector.first_error or not latencies.count:
            raise RuntimeError(f"{url} at {time.ctime()}: {collector.first_error or 'no answer'}")
        return Load(latencies.count / seconds, latencies.percentile(50) / 1e3)

    def open_loop(
        self, url: str, data: bytes, rate: float, warm_up_s: float, seconds: float, deadline_s: float
    ) -> Collector:
        """What becomes of requests at a constant rate, each with a deadline, after so long under the same load."""
        fleet = self._fleet(url, data, deadline_s=deadline_s)
        window = _window(warm_up_s, seconds)
        offsets = offsets_of("constant", rate, warm_up_s + seconds, 0)
        collector = Collector(window)
        fleet.run([Job(window, OpenLoad(offsets, _MOST_IN_FLIGHT))], collector.add, threading.Event())
        return collector

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _fleet(self, url: str, data: bytes, *, stream: bool = False, deadline_s: float = _TIMEOUT_S) -> Fleet:
        key = (url, data, stream, deadline_s)
        if key not in self._fleets:
            connection = Connection(url, None, (), ChannelOptions(max_attempts=1), int(stream), deadline_s)
            self._fleets[key] = self._stack.enter_context(Fleet(connection, [data], 1))
        return self._fleets[key]


def _window(warm_up_s: float, seconds: float) -> Window:
    begins = monotonic_start()
    measured = begins + warm_up_s
    return Window(begins, measured, measured + seconds, seconds / _BUCKETS)
