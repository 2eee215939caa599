"""One model's scheduler: takes requests, asks the policy, hands batches to idle instances, completes what comes back.

Runs on the reactor's thread alone, so it needs no locks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from trtserve_engines.engine import BatchResult
from trtserve_server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotReady,
    Overloaded,
    RequestCancelled,
    RequestError,
    ServerStopping,
)
from trtserve_server.request import BatchTiming, InferRequest
from trtserve_server.scheduling.admission import MARGIN
from trtserve_server.scheduling.alarm import Alarm
from trtserve_server.scheduling.batch import Batch, fail_batch, resolve, resolve_batch
from trtserve_server.scheduling.budget import ByteBudget
from trtserve_server.scheduling.forecast import Forecast
from trtserve_server.scheduling.instance import Instance, ThreadInstance
from trtserve_server.scheduling.pace import Pace
from trtserve_server.scheduling.policy import BatchPolicy, Decision, Dispatch, WaitUntil, decide
from trtserve_server.scheduling.pool import Pool
from trtserve_server.scheduling.queue import RequestQueue, Waiting
from trtserve_server.scheduling.queue_policy import QueuePolicy
from trtserve_server.scheduling.quiet import QuietLoop, gathers
from trtserve_server.scheduling.reactor import Reactor
from trtserve_server.scheduling.reasons import expired, failure, late_at_its_turn
from trtserve_server.scheduling.watchdog import Watchdog
from trtserve_server.statistics import ModelStatistics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatcherOptions:
    """How one model's requests are scheduled.

    `batched` says that outputs have a row for each row of the inputs. Batches of up to `inline_rows` rows are run on
    the reactor's own thread. `threads` are the numbers of threads that a run may be given, none where the engine
    decides; one on the reactor's gets the least. A run that takes longer than `run_timeout_s` is given up.
    """

    policy: BatchPolicy
    queue: QueuePolicy
    batched: bool = True
    inline_rows: int = 0
    threads: tuple[int, ...] = ()
    run_timeout_s: float = math.inf


class Batcher:
    """Schedules the requests of one model over its instances."""

    def __init__(
        self, name: str, options: BatcherOptions, reactor: Reactor, statistics: ModelStatistics, budget: ByteBudget
    ) -> None:
        self._name = name
        self._options = options
        self._reactor = reactor
        self._statistics = statistics
        self._budget = budget
        self._queue = RequestQueue(options.queue)
        self._pool = Pool(self._dispatch, options.threads)
        self._pace = Pace()
        self._watchdog = Watchdog(reactor, options.run_timeout_s, self._overdue)
        self._forecast = Forecast(self._queue, self._pool, self._watchdog, self._pace, options.policy.most_rows)
        self._inline_rows = options.inline_rows
        self._inline_threads = options.threads[0] if options.threads else 0
        self._quiet = QuietLoop() if gathers(options.inline_rows, options.policy.max_rows) else None
        self._running = 0  # requests in batches that instances work on
        self._closed: RequestError | None = None
        self._on_drained: Callable[[], None] | None = None
        self._wake_pending = False
        self._alarm = Alarm(reactor, self._dispatch)
        self.on_lost: Callable[[Instance, str], None] = lambda instance, reason: None
        """Called with an instance that hangs or has died, and why: it is to be replaced."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests in batches that instances work on."""
        return self._running

    def submit(self, requests: Sequence[InferRequest]) -> None:
        """Takes requests that fit the model; each is completed later, or now where it is refused or a lone one."""
        now = self._reactor.now()
        if (lone := self._lone_instance(requests)) is not None:
            self._run_lone(lone, requests[0], now)
            return
        surely_by = self._forecast.surely_by(requests, now)
        for request in requests:
            try:
                self._admit(request, now, surely_by)
                self._enqueue(request)
            except RequestError as error:
                self._refuse(request, error, now)
        self._wake()

    def cancel(self, request: InferRequest) -> None:
        """Gives up a request: waiting, it leaves the queue; running, its answer is dropped."""
        self._leave(request, RequestCancelled("the caller cancelled the request or is gone"))

    def instance_idle(self, instance: Instance) -> None:
        """Takes an instance that has started."""
        self._pool.add(instance, self._reactor.now())
        self._wake()

    def batch_finished(
        self, instance: Instance, batch: Batch, outcome: BatchResult | Exception, started: float, ended: float
    ) -> None:
        """Takes what an instance made of a batch, and the instance back."""
        if not self._watchdog.ended(instance, batch, ended):
            instance.stop()  # it was given up meanwhile, and its requests with it
            return
        self._end(instance, batch, ended - started, ended)
        if isinstance(outcome, BatchResult):
            self._pace.ran(batch.rows, started, ended, waiting=len(self._queue) > 0)
        if len(self._queue):
            self._dispatch()  # first the instance's next batch, then the answers of the last one
        self._answer(instance, batch, outcome, started, ended)
        self._check_drained()

    def instance_died(self, instance: Instance, error: BaseException) -> None:
        """Takes note of an instance whose thread has ended without being told to."""
        log.error("%s: %s died", self._name, instance.name, exc_info=error)
        self._lose(instance, self._watchdog.drop(instance), f"{type(error).__name__} ended the thread that ran it")

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Refuses new requests from now on; calls `on_drained` once every accepted one is completed."""
        self._closed = ServerStopping(
            f"model {self._name!r} takes no new requests: it is being stopped; send elsewhere"
        )
        self._on_drained = on_drained
        self._check_drained()

    def fail(self, reason: str) -> None:
        """Refuses new requests from now on and fails what waits: nothing is left that could run it."""
        self._closed = ModelNotReady(f"model {self._name!r} is unavailable: {reason}")
        self.abort(self._closed)

    def abort(self, error: RequestError) -> None:
        """Fails everything that waits."""
        for request in self._queue.waiting():
            self._leave(request, error)

    def _admit(self, request: InferRequest, now: float, surely_by: float = math.inf) -> None:
        """Raises RequestError where the request is refused; counts its bytes where it is not.

        One that may start later than `surely_by` is in time.
        """
        if self._closed is not None:
            raise type(self._closed)(str(self._closed))
        self._forecast.request_comes()
        self._queue.place(request)
        start_by = self._queue.refused_at(request)
        if surely_by >= start_by != math.inf and (reason := self._forecast.refusal(request, start_by, now)):
            raise DeadlineExceeded(f"model {self._name!r}: {reason}")
        self._budget.take(request.size_bytes, now)

    def _refuse(self, request: InferRequest, error: RequestError, now: float) -> None:
        if isinstance(error, Overloaded):
            error.retry_after_s = max(error.retry_after_s, self._forecast.retry_after_s(now))
        self._complete(request, error)

    def _enqueue(self, request: InferRequest) -> None:
        try:
            self._queue.push(request)
        except Overloaded:
            self._budget.give(request.size_bytes)
            raise

    def _lone_instance(self, requests: Sequence[InferRequest]) -> Instance | None:
        """The instance that runs a request at once, without the queue, where nobody is to share its batch."""
        if len(requests) != 1 or requests[0].rows > self._inline_rows or len(self._queue) or not self._pool.idle:
            return None
        alone = requests[0].in_place or self._options.policy.max_rows == 1
        return self._pool.find() if alone or (self._quiet is not None and self._quiet.is_alone()) else None

    def _run_lone(self, instance: Instance, request: InferRequest, now: float) -> None:
        try:
            self._admit(request, now)
        except RequestError as error:
            self._refuse(request, error, now)
            return
        batch = Batch([request], cut=now, idle_since=instance.idle_since, threads=self._inline_threads)
        self._run_here(instance, batch, "in place" if request.in_place else "alone")

    def _run_here(self, instance: Instance, batch: Batch, reason: str) -> None:
        """Runs a batch on this thread. Nothing else can happen meanwhile, so nothing is kept account of."""
        log.debug("%s: %s on the loop (%s); %d requests still wait", self._name, batch, reason, self.waiting)
        outcome = instance.run_here(batch)
        instance.idle_since = ended = self._reactor.now()
        self._budget.give(batch.size_bytes)
        self._answer(instance, batch, outcome, batch.cut, ended)
        waiting = len(self._queue) > 0
        self._reactor.soon(partial(self._ran_here, instance, batch, ended, waiting=waiting))
        if waiting:
            self._wake()  # the loop takes a turn, in which the answers go
        self._check_drained()

    def _ran_here(self, instance: Instance, batch: Batch, ended: float, *, waiting: bool) -> None:
        self._pool.used(instance, batch.threads, ended - batch.cut)
        self._pace.ran(batch.rows, batch.cut, ended, waiting=waiting)

    def _answer(
        self, instance: Instance, batch: Batch, outcome: BatchResult | Exception, started: float, ended: float
    ) -> None:
        """Completes what still waits for the batch; it is counted once the answers are on their way."""
        error = failure(self._name, batch, outcome, batched=self._options.batched)
        if error is None:
            assert isinstance(outcome, BatchResult)
            _, *phases = outcome
            timing = BatchTiming(instance.name, batch.rows, batch.idle_since, batch.cut, started, ended, *phases)
            answered = resolve_batch(batch, outcome, timing)
            self._reactor.soon(partial(self._statistics.record_batch, answered, timing))
        else:
            self._statistics.record_failures(fail_batch(batch, error), error.reason, ended)

    def _leave(self, request: InferRequest, error: RequestError) -> None:
        if request.done:
            return
        if request.waiting:
            self._queue.remove(request)
            self._budget.give(request.size_bytes)
        self._complete(request, error)
        self._check_drained()

    def _drop(self, request: InferRequest, reason: str) -> None:
        """Refuses a request that has left the queue without being run."""
        self._budget.give(request.size_bytes)
        self._complete(request, DeadlineExceeded(reason))
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
        if self._quiet is not None and self._pool.idle and not self._quiet.is_quiet(len(self._queue)):
            self._reactor.soon(self._woken)
            return
        self._wake_pending = False
        self._dispatch()

    def _dispatch(self) -> None:
        """Cuts batches as long as the policy says so, then sets the timer for what it waits for."""
        now = self._reactor.now()
        for request in self._queue.expired(now):
            self._drop(request, expired(request, now))
        due = math.inf
        while (head := self._queue.head()) is not None and (instance := self._pool.find()) is not None:
            decision = self._decide(head, now)
            if not isinstance(decision, Dispatch):
                due = self._dispatch_others(instance, now)
                break
            if not self._send(instance, decision, head, now):
                break
        self._alarm.set(min(due, self._queue.next_expiry()))
        self._pool.settle()

    def _dispatch_others(self, instance: Instance, now: float) -> float:
        """While the most urgent requests wait for more of their shape, others may be due; the earliest due time."""
        due = math.inf
        free: Instance | None = instance
        for lane in self._queue.lanes():
            decision = self._decide(lane, now)
            if isinstance(decision, WaitUntil):
                due = min(due, decision.time)
            elif isinstance(decision, Dispatch) and free is not None:
                if not self._send(free, decision, lane, now):
                    break
                free = self._pool.find()
        return due

    def _decide(self, waiting: Waiting, now: float) -> Decision:
        latest = self._forecast.latest_start(waiting.expires, waiting.rows)
        # An instance has been found: where none is idle, it can take a batch behind the one that it runs.
        return decide(waiting.rows, waiting.oldest, latest, self._pool.idle, now, self._options.policy, spare=True)

    def _send(self, instance: Instance, decision: Dispatch, waiting: Waiting, now: float) -> bool:
        """Cuts a batch, unless all that it would have held is too late; False where the loop is to take a turn now."""
        run_s = self._forecast.run_s(decision.rows, now)
        at_once = self._pool.idle and instance.idle_since <= waiting.oldest  # nobody has waited for a turn
        requests, late, short = self._queue.take(
            decision.rows, waiting.key, ends=now + run_s * (1.0 if at_once else MARGIN)
        )
        for request in late:
            self._drop(request, late_at_its_turn(request, now, run_s))
        if not requests:
            return True
        reason = f"{decision.reason}, the next request does not fit" if short else decision.reason
        batch = Batch(requests, cut=now, idle_since=instance.idle_since if self._pool.idle else now)
        if batch.rows <= self._inline_rows:
            batch.threads = self._inline_threads
            self._run_here(instance, batch, reason)
            return False
        batch.threads = self._pool.start(instance)
        self._running += len(requests)
        log.debug("%s: %s to %s (%s); %d requests still wait", self._name, batch, instance.name, reason, self.waiting)
        self._watchdog.started(instance, batch, now)
        cast(ThreadInstance, instance).run(batch)
        return True

    def _overdue(self, instance: Instance, batches: Sequence[Batch]) -> None:
        reason = f"a run of {batches[0].rows} rows did not end within run_timeout_s = {self._options.run_timeout_s:g}"
        log.error("%s: %s hangs: %s", self._name, instance.name, reason)
        self._lose(instance, batches, reason)

    def _lose(self, instance: Instance, batches: Sequence[Batch], reason: str) -> None:
        """Fails what an instance was running, and has the instance replaced."""
        now = self._reactor.now()
        for batch in batches:
            self._end(instance, batch, now - batch.cut, now)
            error = InferenceFailed(f"model {self._name!r}: {reason}")
            self._statistics.record_failures(fail_batch(batch, error), error.reason, now)
        self._pool.remove(instance)
        self.on_lost(instance, reason)
        self._check_drained()

    def _end(self, instance: Instance, batch: Batch, seconds: float, now: float) -> None:
        self._running -= len(batch.requests)
        self._budget.give(batch.size_bytes)
        self._pool.end(instance, batch.threads, seconds, now)

    def _check_drained(self) -> None:
        if self._on_drained and not len(self._queue) and not self._running:
            on_drained, self._on_drained = self._on_drained, None
            on_drained()
