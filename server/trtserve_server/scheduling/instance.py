"""What runs batches: one execution context and a thread around it, or none where every run is a quick one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Protocol, cast

from trtserve_engines.engine import BatchResult, ExecutionContext, PipelinedContext
from trtserve_engines.errors import ExecutionError
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.device import Device
from trtserve_server.scheduling.pipeline import run_pipelined
from trtserve_server.scheduling.reactor import Reactor

CreateContext = Callable[[], ExecutionContext]
Started = Callable[["Instance", Exception | None], None]
Outcome = BatchResult | Exception
Finished = Callable[["Instance", Batch, Outcome, float, float], None]
Died = Callable[["Instance", BaseException], None]


class Reports(NamedTuple):
    """Whom an instance tells, always on the reactor's thread.

    `on_started(instance, error or None)` comes once, after the context is made and warmed up;
    `on_finished(instance, batch, result or error, start, end)` after every batch, times on the reactor's clock;
    `on_died(instance, error)` if a thread ends without being told to.
    """

    on_started: Started
    on_finished: Finished
    on_died: Died


class Instance(Protocol):
    """Runs one batch at a time on `device`. Quick ones may run here, on the reactor's thread: see `run_here`."""

    name: str
    device: Device
    idle_since: float
    """When it became free, on the reactor's clock; kept by the batcher."""
    capacity: int
    """Batches that it can hold; more than one where its context pipelines. Known once it has started."""

    def start(self) -> None:
        """Begins to live; `on_started` is called later, once."""
        ...

    def run_here(self, batch: Batch) -> Outcome:
        """What the context makes of a batch, at once and with no report of it; only while nothing else is run."""
        ...

    def stop(self) -> None:
        """Ends after the batch that it runs; returns at once."""
        ...

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits for the end; False where it is still at work after `timeout_s`."""
        ...


class _AnyInstance:
    """What instances of both kinds are made of. The context is used by one thread at a time."""

    _context: ExecutionContext | None = None

    def __init__(
        self, name: str, device: Device, create_context: CreateContext, reactor: Reactor, reports: Reports
    ) -> None:
        self.name = name
        self.device = device
        self.idle_since = 0.0
        self.capacity = 1
        self._create_context = create_context
        self._reactor = reactor
        self._reports = reports

    def run_here(self, batch: Batch) -> Outcome:
        """See Instance."""
        if self._context is None:  # the server is forced to stop, and this came after all
            return ExecutionError(f"{self.name} has stopped")
        return _outcome(self._context, batch)


class ThreadInstance(_AnyInstance):
    """Runs batches on a thread of its own, which makes and frees the execution context too.

    Between its batches the thread leaves the context alone, so that `run_here` may use it.
    """

    def __init__(
        self, name: str, device: Device, create_context: CreateContext, reactor: Reactor, reports: Reports
    ) -> None:
        super().__init__(name, device, create_context, reactor, reports)
        self._inbox: SimpleQueue[Batch | None] = SimpleQueue()
        # A daemon: a forced exit does not wait for a model that hangs.
        self._thread = Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """See Instance."""
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._reactor.soon(partial(self._reports.on_started, self, error))

    def run(self, batch: Batch) -> None:
        """Takes a batch; `on_finished` is called when it has run."""
        self._inbox.put(batch)

    def stop(self) -> None:
        """See Instance."""
        self._context = None  # the thread is about to close it
        self._inbox.put(None)

    def join(self, timeout_s: float | None = None) -> bool:
        """See Instance."""
        if self._thread.ident is not None:  # else it never started, and cannot be joined
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        self._context = context = self._open()
        if context is None:
            return
        self._reactor.post(self._reports.on_started, self, None)
        try:
            if self.capacity > 1:
                run_pipelined(cast(PipelinedContext, context), self._inbox, self._report, self._reactor.now)
            else:
                self._run_one_by_one(context)
        except BaseException as error:  # what ends the thread, such as SystemExit, must not leave requests unanswered
            self._reactor.post(self._reports.on_died, self, error)
        self._context = None
        context.close()

    def _open(self) -> ExecutionContext | None:
        try:
            context = self._create_context()
        except Exception as error:
            self._reactor.post(self._reports.on_started, self, error)
            return None
        depth = getattr(context, "depth", 1)
        # One more than the context takes, so that the next is at hand as soon as it has taken one.
        self.capacity = depth + 1 if depth > 1 else 1
        return context

    def _run_one_by_one(self, context: ExecutionContext) -> None:
        while (batch := self._inbox.get()) is not None:
            start = self._reactor.now()
            self._report(batch, _outcome(context, batch), start, self._reactor.now())
            del batch  # the wait for the next one must not keep this one's tensors

    def _report(self, batch: Batch, outcome: Outcome, start: float, end: float) -> None:
        self._reactor.post(self._reports.on_finished, self, batch, outcome, start, end)


class InlineInstance(_AnyInstance):
    """Runs batches here alone: for models whose largest batch takes less than the two changes of threads."""

    def start(self) -> None:
        """See Instance."""
        error: Exception | None = None
        try:
            self._context = self._create_context()
        except Exception as failure:
            error = failure
        self._reactor.soon(partial(self._reports.on_started, self, error))

    def stop(self) -> None:
        """See Instance."""
        context, self._context = self._context, None
        if context is not None:
            context.close()

    def join(self, timeout_s: float | None = None) -> bool:
        """See Instance: nothing runs beside the reactor."""
        return True


def _outcome(context: ExecutionContext, batch: Batch) -> Outcome:
    try:
        return context.run(batch.parts, batch.threads)
    except Exception as error:
        return error
