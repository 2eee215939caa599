"""One model's scheduler: takes requests, asks the policy, hands batches to idle instances, completes what comes back.

Runs on the reactor's thread alone, so it needs no locks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

from trtserve_engines.engine import BatchResult
from trtserve_engines.errors import ExecutionError
from trtserve_server.errors import DeadlineExceeded, InferenceFailed, RequestCancelled, RequestError, ServerStopping
from trtserve_server.request import BatchKey, InferRequest
from trtserve_server.scheduling.batch import Batch, fail_batch, resolve, resolve_batch, row_problem
from trtserve_server.scheduling.instance import Instance
from trtserve_server.scheduling.policy import BatchPolicy, Dispatch, WaitUntil, decide
from trtserve_server.scheduling.queue import RequestQueue
from trtserve_server.scheduling.quiet import QuietLoop
from trtserve_server.scheduling.reactor import Cancel, Reactor
from trtserve_server.statistics import ModelStatistics

log = logging.getLogger(__name__)


class Batcher:
    """Schedules the requests of one model over its instances; `inline` says that these run on this very thread."""

    def __init__(
        self,
        name: str,
        policy: BatchPolicy,
        reactor: Reactor,
        statistics: ModelStatistics,
        *,
        max_queue_size: int,
        inline: bool = False,
    ) -> None:
        self._name = name
        self._policy = policy
        self._reactor = reactor
        self._statistics = statistics
        self._queue = RequestQueue(max_queue_size)
        self._quiet = QuietLoop() if inline else None
        self._idle: list[Instance] = []
        self._running = 0  # requests in batches that instances work on
        self._draining = False
        self._on_drained: Callable[[], None] | None = None
        self._wake_pending = False
        self._timer: Cancel | None = None
        self._timer_time = math.inf

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests in batches that instances work on."""
        return self._running

    def submit(self, requests: Iterable[InferRequest]) -> None:
        """Takes requests that fit the model; each is completed later, or now where it is refused."""
        for request in requests:
            try:
                self._accept(request)
            except RequestError as error:
                self._complete(request, error)
        self._wake()

    def cancel(self, request: InferRequest) -> None:
        """Gives up a request: waiting, it leaves the queue; running, its answer is dropped."""
        self._leave(request, RequestCancelled("the caller cancelled the request or is gone"))

    def instance_idle(self, instance: Instance) -> None:
        """Takes an instance that has started, or is free again."""
        self._idle.append(instance)
        self._wake()

    def batch_finished(
        self, instance: Instance, batch: Batch, outcome: BatchResult | Exception, started: float, ended: float
    ) -> None:
        """Takes what an instance made of a batch, and the instance back."""
        self._running -= len(batch.requests)
        self._idle.append(instance)
        if len(self._queue):
            if self._quiet is None:
                self._dispatch()  # first the instance's next batch, then the answers of the last one
            else:
                self._wake()  # the next batch would be run at once; the answers of the last one go first
        error = self._failure(batch, outcome)
        if error is None:
            assert isinstance(outcome, BatchResult)
            answered = resolve_batch(batch, outcome, started, ended)
            self._statistics.record_batch(answered, outcome, batch.rows, started, ended)
        else:
            self._statistics.record_failures(fail_batch(batch, error), error.reason, ended)
        self._check_drained()

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Refuses new requests from now on; calls `on_drained` once every accepted one is completed."""
        self._draining = True
        self._on_drained = on_drained
        self._check_drained()

    def abort(self, error: RequestError) -> None:
        """Fails everything that waits."""
        for request in self._queue.waiting():
            self._leave(request, error)

    def _accept(self, request: InferRequest) -> None:
        if self._draining:
            raise ServerStopping(f"model {self._name!r} takes no new requests: it is being stopped; send elsewhere")
        if request.deadline <= self._reactor.now():
            raise DeadlineExceeded("the deadline had passed before the request was queued")
        self._queue.push(request)

    def _leave(self, request: InferRequest, error: RequestError) -> None:
        if request.done:
            return
        waiting = request.waiting
        self._complete(request, error)
        if waiting:
            self._queue.remove(request)
        self._check_drained()

    def _complete(self, request: InferRequest, error: RequestError) -> None:
        if resolve(request, error):
            self._statistics.record_failures([request], error.reason, self._reactor.now())

    def _wake(self) -> None:
        """Decides once the loop has taken everything that has arrived, so that it can share a batch."""
        if not self._wake_pending:
            self._wake_pending = True
            self._reactor.soon(self._woken)

    def _woken(self) -> None:
        if self._quiet is not None and not self._quiet.is_quiet(len(self._queue)):
            self._reactor.soon(self._woken)
            return
        self._wake_pending = False
        self._dispatch()

    def _timer_fired(self) -> None:
        self._timer, self._timer_time = None, math.inf
        self._dispatch()

    def _dispatch(self) -> None:
        """Cuts batches as long as the policy says so, then sets the timer for what it waits for."""
        now = self._reactor.now()
        for request in self._queue.expired(now):
            self._leave(request, DeadlineExceeded("the deadline passed while the request waited in the queue"))
        due = math.inf
        while self._idle and (head := self._queue.head()) is not None:
            decision = decide(*head, len(self._idle), now, self._policy)
            if isinstance(decision, Dispatch):
                self._send(decision, now)
                continue
            due = self._dispatch_others(now)
            break
        self._set_timer(min(due, self._queue.next_deadline()))

    def _dispatch_others(self, now: float) -> float:
        """While the most urgent requests wait for more of their shape, others may be due; the earliest due time."""
        due = math.inf
        for key, rows, oldest in self._queue.lanes():
            decision = decide(rows, oldest, len(self._idle), now, self._policy)
            if isinstance(decision, Dispatch):
                self._send(decision, now, key)
            elif isinstance(decision, WaitUntil):
                due = min(due, decision.time)
        return due

    def _send(self, decision: Dispatch, now: float, key: BatchKey | None = None) -> None:
        instance = self._idle.pop()
        batch = Batch(self._queue.take(decision.rows, key), cut=now, instance=instance.name)
        self._running += len(batch.requests)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s: %d rows of %d requests to %s (%s); %d requests still wait",
                self._name, batch.rows, len(batch.requests), instance.name, decision.reason, len(self._queue),
            )  # fmt: skip
        instance.run(batch)

    def _set_timer(self, time: float) -> None:
        if time == self._timer_time:
            return
        if self._timer is not None:
            self._timer()
        self._timer_time = time
        self._timer = None if time == math.inf else self._reactor.at(time, self._timer_fired)

    def _failure(self, batch: Batch, outcome: BatchResult | Exception) -> RequestError | None:
        """Why nothing of the batch can be answered; None where it can."""
        if isinstance(outcome, BatchResult):
            problem = row_problem(batch, outcome.outputs)
            return InferenceFailed(f"model {self._name!r}: {problem}") if problem else None
        if isinstance(outcome, ExecutionError):
            log.warning("%s: a batch of %d rows failed: %s", self._name, batch.rows, outcome)
            return InferenceFailed(f"model {self._name!r}: {outcome}")
        log.error("%s: a batch of %d rows failed", self._name, batch.rows, exc_info=outcome)
        return InferenceFailed(f"model {self._name!r} failed with {type(outcome).__name__}; the log has the details")

    def _check_drained(self) -> None:
        if self._draining and self._on_drained and not len(self._queue) and not self._running:
            on_drained, self._on_drained = self._on_drained, None
            on_drained()
