"""trtserve-load's workers as the bench's load: the same calls as load.closed_loop, from a process of their own."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from types import TracebackType

from trtserve_client import ChannelOptions
from trtserve_client.load.collector import Collector
from trtserve_client.load.fleet import Fleet, monotonic_start
from trtserve_client.load.jobs import ClosedLoad, Connection, Job, Window

_BUCKETS = 30
_TIMEOUT_S = 30.0


class Harness:
    """One worker for each server and message, started when it is first needed. Use it in a `with`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._fleets: dict[tuple[str, bytes], Fleet] = {}

    def closed_loop(self, url: str, data: bytes, concurrency: int, seconds: float) -> tuple[float, float]:
        """Answers per second and the median latency in seconds, after a short warm-up."""
        fleet = self._fleet(url, data)
        begins = monotonic_start()
        measured = begins + seconds / 5
        window = Window(begins, measured, measured + seconds, seconds / _BUCKETS)
        collector = Collector(window)
        fleet.run([Job(window, ClosedLoad(concurrency, 0))], collector.add, threading.Event())
        latencies = collector.latencies()
        if collector.first_error or not latencies.count:
            raise RuntimeError(f"{url} at {time.ctime()}: {collector.first_error or 'no answer'}")
        return latencies.count / seconds, latencies.percentile(50) / 1e3

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _fleet(self, url: str, data: bytes) -> Fleet:
        if (url, data) not in self._fleets:
            connection = Connection(url, None, (), ChannelOptions(max_attempts=1), 0, _TIMEOUT_S)
            self._fleets[url, data] = self._stack.enter_context(Fleet(connection, [data], 1))
        return self._fleets[url, data]
