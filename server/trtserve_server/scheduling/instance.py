"""One thread around one execution context: takes batches from its inbox, posts results back to the core."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from trtserve_engines.engine import BatchResult, Engine, ExecutionContext
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.reactor import Reactor

log = logging.getLogger(__name__)

Warmup = Callable[[ExecutionContext], None]
Started = Callable[["Instance", Exception | None], None]
Finished = Callable[["Instance", Batch, BatchResult | Exception, float, float], None]


class Instance:
    """Runs one batch at a time.

    `on_started(instance, error or None)` is posted once, after the context is made and warmed up;
    `on_finished(instance, batch, result or error, start, end)` after every batch, times on the reactor's clock.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        reactor: Reactor,
        *,
        batched: bool,
        warmup: Warmup,
        on_started: Started,
        on_finished: Finished,
    ) -> None:
        self.name = name
        self._engine = engine
        self._reactor = reactor
        self._batched = batched
        self._warmup = warmup
        self._on_started = on_started
        self._on_finished = on_finished
        self._inbox: SimpleQueue[Batch | None] = SimpleQueue()
        # A daemon: a forced exit does not wait for a model that hangs.
        self._thread = Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def run(self, batch: Batch) -> None:
        """Hands over a batch; returns at once."""
        self._inbox.put(batch)

    def stop(self) -> None:
        """Ends the thread after the batch that it runs; returns at once."""
        self._inbox.put(None)

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits for the thread's end; False where it is still at work after `timeout_s`."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        context = self._open()
        if context is None:
            return
        while (batch := self._inbox.get()) is not None:
            self._run(context, batch)
            del batch  # the wait for the next one must not keep this one's tensors
        context.close()

    def _open(self) -> ExecutionContext | None:
        context = None
        try:
            context = self._engine.create_context(batched=self._batched)
            self._warmup(context)
        except Exception as error:
            if context is not None:
                context.close()
            self._reactor.post(self._on_started, self, error)
            return None
        self._reactor.post(self._on_started, self, None)
        return context

    def _run(self, context: ExecutionContext, batch: Batch) -> None:
        start = self._reactor.now()
        outcome: BatchResult | Exception
        try:
            outcome = context.run([request.inputs for request in batch.requests])
        except Exception as error:
            outcome = error
        self._reactor.post(self._on_finished, self, batch, outcome, start, self._reactor.now())
