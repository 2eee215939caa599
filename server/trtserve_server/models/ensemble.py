"""A model made of models: serves requests by running its steps. Holds no engine and no queue of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trtserve_engines.config import ConfigError
from trtserve_engines.signature import Signature
from trtserve_server.config import ModelConfig
from trtserve_server.errors import DeadlineExceeded, RequestCancelled, RequestError, ServerStopping
from trtserve_server.models.effective import EffectiveConfig, completed_config
from trtserve_server.models.ensemble_graph import Graph, batch_size_of, graph_of, signature_of
from trtserve_server.models.ensemble_run import EnsembleRun, Find
from trtserve_server.models.input_checks import batch_rows, check_inputs, request_rows
from trtserve_server.models.labels import read_labels
from trtserve_server.models.repository import ModelVersion
from trtserve_server.models.reshape import check_not_reshaped
from trtserve_server.models.response_cache import ModelCache, ResponseCache
from trtserve_server.request import BatchKey, InferRequest, InferResponse, Outcome
from trtserve_server.scheduling.admission import too_late
from trtserve_server.scheduling.batch import resolve
from trtserve_server.scheduling.pace import FRESH_S, Pace
from trtserve_server.scheduling.reactor import Reactor
from trtserve_server.statistics import ModelStatistics

MAX_DEPTH = 32
"""Ensembles in ensembles: a request and its answer pass through all of them on one stack."""


@dataclass(frozen=True)
class LoadedEnsemble:
    """All of an ensemble that does not depend on its models."""

    source: ModelVersion
    graph: Graph
    labels: Mapping[str, Sequence[str]]
    load_s: float


def load_ensemble(source: ModelVersion) -> LoadedEnsemble:
    """Reads what `source` says. Raises ConfigError."""
    start = time.monotonic()
    if source.problem:
        raise ConfigError(source.problem)
    check_not_reshaped(source.config)
    graph = graph_of(source.config)
    labels = read_labels(source)
    return LoadedEnsemble(source, graph, labels, time.monotonic() - start)


class EnsembleModel:
    """One version of an ensemble, over the models that `find` gives. Raises ConfigError as `assemble` does.

    `epoch` counts the changes of models, after which answers may be others.
    """

    backend = "ensemble"
    instances = 0
    waiting = 0
    awaits_engine = False
    placed: Mapping[str, int] = {}
    facts: Mapping[str, str] = {}

    signature: Signature
    depth: int

    def __init__(
        self,
        loaded: LoadedEnsemble,
        find: Find,
        reactor: Reactor,
        *,
        cache: ResponseCache | None = None,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self._loaded = loaded
        self._graph = loaded.graph
        self._find = find
        self._now = reactor.now
        self.name = loaded.source.name
        self.version = loaded.source.version
        self.parts = [step.model for step in self._graph.steps]
        self.labels = loaded.labels
        self.load_s = loaded.load_s
        self.statistics = ModelStatistics()
        self._cache: ModelCache | None = None
        if cache is not None and self.config.response_cache:
            self._cache = ModelCache(cache, self.statistics, epoch=epoch)
        self._runs: dict[InferRequest, EnsembleRun] = {}
        self._pace = Pace()
        self.preserve_ordering = self.config.batching.preserve_ordering
        self._holds = 0
        self._drained = False
        self._on_drained: Callable[[], None] | None = None
        self.assemble()

    @property
    def config(self) -> ModelConfig:
        """The configuration that the ensemble was loaded with."""
        return self._loaded.source.config

    @property
    def effective(self) -> EffectiveConfig:
        """The configuration in force, completed from the models of the steps."""
        return completed_config(self.config, self.signature, self.max_batch_size, self.batching_reason)

    def assemble(self) -> None:
        """Works out what the ensemble takes and gives from the models that serve now.

        Raises ConfigError where one does not serve or they do not fit each other.
        """
        models = []
        for number, step in enumerate(self._graph.steps):
            try:
                models.append(self._find(step.model, step.asked_version))
            except RequestError as error:
                raise ConfigError(f"{self._graph.shown(number)}: {error}") from None
        self.depth = 1 + max(model.depth for model in models)
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"ensembles lie {self.depth} deep in each other here; wanted is at most {MAX_DEPTH}")
        max_batch_size, reason = batch_size_of(self._graph, self.config, models)
        self.signature = signature_of(self._graph, self.config, models, max_batch_size)
        self.max_batch_size, self.batching_reason = max_batch_size, reason
        self.device = ", ".join(sorted({model.device for model in models}))

    def problem(self) -> str:
        """Assembles the ensemble anew from the models that serve now; why that cannot be done, "" where it can."""
        try:
            self.assemble()
        except ConfigError as error:
            return str(error)
        return ""

    def check(self, inputs: Mapping[str, np.ndarray]) -> tuple[int, BatchKey]:
        """See Model."""
        check_inputs(self.name, self.signature, inputs, batched=self.max_batch_size > 0)
        return (request_rows(self.name, inputs, self.max_batch_size) if self.max_batch_size else 1), ()

    def check_batch(self, inputs: Mapping[str, np.ndarray]) -> tuple[int, BatchKey]:
        """See Model."""
        check_inputs(self.name, self.signature, inputs, batched=self.max_batch_size > 0)
        return batch_rows(self.name, inputs, self.max_batch_size, self.batching_reason), ()

    def submit(self, requests: Sequence[InferRequest]) -> None:
        """See Model."""
        now = self._now()
        for request in requests:
            self._begin(request, now)

    def _begin(self, request: InferRequest, now: float) -> None:
        if self._cache is not None and self._cache.answer(request, now):
            return
        if self._on_drained is not None and not self._holds:
            error = ServerStopping(f"model {self.name!r} takes no new requests: it is being stopped; send elsewhere")
            self._complete(request, error)
            return
        if request.deadline != math.inf and (reason := self._refusal(request, now)):
            self._complete(request, DeadlineExceeded(f"model {self.name!r}: {reason}"))
            return
        run = self._runs[request] = EnsembleRun(self.name, self._graph, request, self._find, self._run_done)
        run.start(now)

    def _refusal(self, request: InferRequest, now: float) -> str:
        """Why a request cannot be answered in time. The waits are its steps' matter, what all of them take is ours."""
        known = self._runs or now - self._pace.last <= FRESH_S
        return too_late(now, request.deadline, math.inf, 0.0, self._pace.run_s(request.rows) if known else 0.0)

    def cancel(self, request: InferRequest) -> None:
        """See Model; every step under way is given up."""
        if run := self._runs.get(request):
            run.fail(RequestCancelled("the caller cancelled the request or is gone"))

    def hold(self) -> None:
        """See Model."""
        self._holds += 1

    def release(self) -> None:
        """See Model."""
        self._holds -= 1
        self._check_drained()

    def drain(self, on_drained: Callable[[], None]) -> None:
        """See Model."""
        self._on_drained = on_drained
        self._check_drained()

    def abort(self, error: RequestError) -> None:
        """Fails everything that is under way: all of it waits at some step."""
        for run in tuple(self._runs.values()):
            run.fail(error)

    def stop(self) -> None:
        """See Model: nothing runs here."""
        if self._cache is not None:
            self._cache.close()

    def close(self, timeout_s: float) -> bool:
        """See Model: there is nothing to free."""
        return True

    def _run_done(self, run: EnsembleRun, outcome: Outcome) -> None:
        del self._runs[run.request]
        if isinstance(outcome, InferResponse):
            timing = outcome.timing
            # Its waits come first in the timing. Steps side by side may have waited for longer than all of it took.
            self._pace.ran(timing.rows, min(timing.started, timing.ended), timing.ended, waiting=False)
        self._complete(run.request, outcome)
        self._check_drained()

    def _complete(self, request: InferRequest, outcome: Outcome) -> None:
        if not resolve(request, outcome):
            return
        if isinstance(outcome, InferResponse):
            self.statistics.record_batch([request], outcome.timing)
        else:
            self.statistics.record_failures([request], outcome.reason, self._now())

    def _check_drained(self) -> None:
        if self._on_drained is not None and not self._holds and not self._runs and not self._drained:
            self._drained = True
            self._on_drained()
