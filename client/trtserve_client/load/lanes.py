"""A lane is a way to a target that can be measured again and again: its connection, its workers, its observer."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

import psutil

from trtserve_client.load.collector import Collector, run_from_collected
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import UsageError
from trtserve_client.load.fleet import Fleet, monotonic_start
from trtserve_client.load.gpu import GpuWatch
from trtserve_client.load.jobs import Progress
from trtserve_client.load.loads import Load, due_of, jobs_of, window_of, workers_of
from trtserve_client.load.observer import Observer, listening_pid
from trtserve_client.load.probe import Target, connection_of, find_target, first_answer, open_client
from trtserve_client.load.results import Run
from trtserve_client.load.shared_memory import shared_messages
from trtserve_client.load.sources import Request, requests_from_config
from trtserve_client.load.timings import asking
from trtserve_client.load.trace import Trace, read_trace
from trtserve_client.messages import infer_request

OnView = Callable[[Collector], None]
"""Called as a measurement goes on."""


class Lane(Protocol):
    """What can be measured."""

    name: str

    def measure(self, load: Load, stop: threading.Event, on_view: OnView) -> Run:
        """One measurement; `stop` ends it early. Raises LoadError."""
        ...


class ServerLane:
    """A server with its workers connected. Use it in a `with`; entering asks the server and raises LoadError."""

    def __init__(self, name: str, config: LoadConfig) -> None:
        self.name = name
        self.config = config
        self.trace: Trace | None = None
        self.requests: list[Request] = []
        self._stack = ExitStack()

    def __enter__(self) -> ServerLane:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(self, load: Load, stop: threading.Event, on_view: OnView) -> Run:
        """See Lane."""
        window = window_of(load, self.config, monotonic_start())
        collector = Collector(window)

        def progress(worker: int, told: Progress) -> None:
            collector.add(worker, told)
            on_view(collector)

        jobs = jobs_of(load, window, self.config, len(self._fleet))
        self._observer.start(window)
        try:
            finished = self._fleet.run(jobs, progress, stop)
        finally:
            self._observer.stop()
        return run_from_collected(
            collector,
            finished,
            due=due_of(jobs),
            tolerance_percent=self.config.stability_percent,
            machine_cpu=self._observer.machine_cpu(),
            server=self._observer.server_use(),
            batches=self._observer.batches(),
            server_is_here=self._observer.server_is_here,
            interrupted=stop.is_set(),
        )

    def _open(self, stack: ExitStack) -> None:
        config = self.config
        connection = connection_of(config)
        client = stack.enter_context(open_client(connection))
        self.target: Target = find_target(client, config)
        self.requests = self._prepared()
        answer = first_answer(client, config, self.requests[0])
        messages: Sequence[bytes]
        if config.shared_memory:
            messages = stack.enter_context(shared_messages(client, config, self.requests, answer))
        else:
            messages = [
                infer_request(config.model, each, version=config.version, parameters=asking(config))
                for each in self.requests
            ]
        workers = workers_of(config, os.cpu_count() or 1)
        connection = dataclasses.replace(connection, streams=config.streams // workers, timed=config.timing)
        self._fleet = stack.enter_context(Fleet(connection, messages, workers))
        if config.server_pid and not psutil.pid_exists(config.server_pid):
            raise UsageError(f"--server-pid {config.server_pid}: this machine has no such process")
        pid = config.server_pid or listening_pid(config.url)
        # A server elsewhere does not use the GPUs here.
        gpus = stack.enter_context(GpuWatch()) if pid else GpuWatch()
        self._observer = Observer(client, config.model, config.version, pid, gpus)

    def _prepared(self) -> list[Request]:
        if self.config.trace:
            self.trace = read_trace(self.config.trace, self.target.model)
            if self.trace.requests:
                return self.trace.requests
        return requests_from_config(self.config, self.target.model)
