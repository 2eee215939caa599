"""A catalogue that makes ensembles of its models: each once the models of its steps serve, or refused once one cannot.

Ensembles follow their models: they wait for them, lose them and get them back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trtserve_engines.config import ConfigError
from trtserve_server.errors import ServerStopping
from trtserve_server.models.catalogue import STOPPING, Catalogue, State
from trtserve_server.models.ensemble import EnsembleModel, LoadedEnsemble
from trtserve_server.models.model import Model
from trtserve_server.models.response_cache import ResponseCache
from trtserve_server.scheduling.reactor import Reactor

log = logging.getLogger(__name__)

Decided = Callable[[EnsembleModel | None, Exception | None], None]


@dataclass(frozen=True, eq=False)
class _Waiting:
    loaded: LoadedEnsemble
    on_decided: Decided

    @property
    def name(self) -> str:
        return self.loaded.source.name

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Name and version, "" for the newest, of each step's model."""
        return [(step.model, step.asked_version) for step in self.loaded.graph.steps]


class Assembly(Catalogue):
    """Models by name and version, and the ensembles among them. Belongs to the scheduling thread."""

    def __init__(self, reactor: Reactor, cache: ResponseCache | None) -> None:
        super().__init__()
        self._reactor = reactor
        self._cache = cache
        self._stopping = False
        self._assembling: list[_Waiting] = []
        self._has_ensembles = False
        self._look_pending = False

    def _assemble(self, loaded: LoadedEnsemble, on_decided: Decided) -> None:
        """Has `on_decided` called later, with the ensemble or with why there is none."""
        self._has_ensembles = True
        self._assembling.append(_Waiting(loaded, on_decided))
        self._look_soon()

    def _changed(self, name: str) -> None:
        super()._changed(name)
        if self._has_ensembles:
            self._look_soon()

    def _look_soon(self) -> None:
        if not self._look_pending:
            self._look_pending = True
            self._reactor.soon(self._look)

    def _look(self) -> None:
        self._look_pending = False
        if self._stopping:
            for waiting in tuple(self._assembling):
                self._settle_ensemble(waiting, ServerStopping(STOPPING))
            return
        self._decide()
        for entry in tuple(self.entries()):
            if isinstance(entry.model, EnsembleModel) and entry.wanted:
                problem = entry.model.problem()
                if problem and (entry.state, entry.reason) != (State.UNAVAILABLE, problem):
                    self._set_state(entry, State.UNAVAILABLE, problem)
                    log.error("%s/%s is unavailable: %s", entry.name, entry.version, problem)
                elif not problem and entry.state is State.UNAVAILABLE:
                    self._set_state(entry, State.READY)
                    log.info("%s/%s is ready again", entry.name, entry.version)

    def _decide(self) -> None:
        """Makes or refuses every ensemble whose models are loaded or failed."""
        for waiting in tuple(self._assembling):
            cycle = self._cycle(waiting)
            if cycle:
                names = " needs ".join(map(repr, cycle))
                self._settle_ensemble(waiting, ConfigError(f"the ensemble needs itself: {names}"))
            elif not any(self._is_awaited(name, version) for name, version in waiting.steps):
                self._settle_ensemble(waiting)

    def _settle_ensemble(self, waiting: _Waiting, error: Exception | None = None) -> None:
        self._assembling.remove(waiting)
        model = None
        if error is None:
            try:
                model = EnsembleModel(
                    waiting.loaded, self.find, self._reactor, cache=self._cache, epoch=lambda: self.generation
                )
            except ConfigError as problem:
                error = problem
        waiting.on_decided(model, error)

    def _is_awaited(self, name: str, version: str) -> bool:
        if self.serves(name, version):
            return False
        return any(entry.state is State.LOADING and version in ("", entry.version) for entry in self.versions(name))

    def _cycle(self, waiting: _Waiting) -> list[str]:
        """The names on the way from an ensemble to itself, by others that wait; [] where there is no such way."""
        steps = {each.name: [name for name, _ in each.steps] for each in self._assembling}
        paths = [[waiting.name]]
        seen = set()
        while paths:
            path = paths.pop()
            for name in steps.get(path[-1], ()):
                if name == waiting.name:
                    return [*path, name]
                if name not in seen:
                    seen.add(name)
                    paths.append([*path, name])
        return []


def needed_by(models: Iterable[Model]) -> set[str]:
    """The names of the models that the ensembles among `models` run."""
    return {part for model in models for part in model.parts}
