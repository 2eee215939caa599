"""Ensembles on their way: each is made once the models of its steps serve, or refused once one of them cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trtserve_engines.config import ConfigError
from trtserve_server.errors import RequestError
from trtserve_server.models.catalogue import Catalogue, State
from trtserve_server.models.ensemble import EnsembleModel, LoadedEnsemble

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
        return [(step.model, str(step.version) if step.version else "") for step in self.loaded.graph.steps]


class Assembly:
    """The ensembles that wait for models of `catalogue`; `make` makes one of them. Belongs to the scheduling thread."""

    def __init__(self, catalogue: Catalogue, make: Callable[[LoadedEnsemble], EnsembleModel]) -> None:
        self._catalogue = catalogue
        self._make = make
        self._waiting: list[_Waiting] = []

    def add(self, loaded: LoadedEnsemble, on_decided: Decided) -> None:
        """Has `on_decided` called, by a later `decide`, with the ensemble or with why there is none."""
        self._waiting.append(_Waiting(loaded, on_decided))

    def decide(self) -> None:
        """To be called when states have changed: makes or refuses every ensemble whose models are loaded or failed."""
        for waiting in tuple(self._waiting):
            cycle = self._cycle(waiting)
            if cycle:
                names = " needs ".join(map(repr, cycle))
                self._settle(waiting, ConfigError(f"the ensemble needs itself: {names}"))
            elif not any(self._is_awaited(name, version) for name, version in waiting.steps):
                self._settle(waiting)

    def give_up(self, error: RequestError) -> None:
        """Refuses all that still wait."""
        for waiting in tuple(self._waiting):
            self._settle(waiting, error)

    def _settle(self, waiting: _Waiting, error: Exception | None = None) -> None:
        self._waiting.remove(waiting)
        model = None
        if error is None:
            try:
                model = self._make(waiting.loaded)
            except ConfigError as problem:
                error = problem
        waiting.on_decided(model, error)

    def _is_awaited(self, name: str, version: str) -> bool:
        if self._catalogue.serves(name, version):
            return False
        return any(
            entry.state is State.LOADING and version in ("", entry.version) for entry in self._catalogue.versions(name)
        )

    def _cycle(self, waiting: _Waiting) -> list[str]:
        """The names on the way from an ensemble to itself, by others that wait; [] where there is no such way."""
        steps = {each.name: [name for name, _ in each.steps] for each in self._waiting}
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
