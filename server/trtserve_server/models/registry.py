"""Every model that the server knows, by name and version, and its state: the only place where states change.

LOADING → READY → UNLOADING → UNAVAILABLE       LOADING → UNAVAILABLE, with the reason
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum

from trtserve_engines.options import nearest
from trtserve_server.config import ServerConfig
from trtserve_server.errors import ModelNotFound, ModelNotReady, ServerStopping
from trtserve_server.models.loader import LoadedModel, load_model
from trtserve_server.models.repository import ModelVersion
from trtserve_server.models.served_model import ServedModel
from trtserve_server.scheduling.reactor import Reactor

log = logging.getLogger(__name__)


class State(Enum):
    """The states of Triton's repository index."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass
class Entry:
    """One version of one model. `model` is there while the state is READY or UNLOADING."""

    source: ModelVersion
    state: State
    reason: str = ""
    model: ServedModel | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.source.name

    @property
    def version(self) -> str:
        """The version; "" where none could be told."""
        return self.source.version


class Registry:
    """The models by name and version. Belongs to the scheduling thread; loading runs in `executor`."""

    def __init__(self, config: ServerConfig, reactor: Reactor, executor: Executor) -> None:
        self._config = config
        self._reactor = reactor
        self._executor = executor
        self._entries: dict[str, dict[str, Entry]] = {}
        self._serving: dict[tuple[str, str], ServedModel] = {}
        self._loading = 0
        self._on_loaded: Callable[[], None] = lambda: None
        self.generation = 0
        """Counts the changes of states: what was found before the last one may not be what serves now."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after every change of a state."""

    def load(self, sources: Iterable[ModelVersion], on_loaded: Callable[[], None]) -> None:
        """Loads every source at the same time; calls `on_loaded` once each is READY or UNAVAILABLE."""
        self._on_loaded = on_loaded
        entries = [self._add(source) for source in sources]
        self.on_change()
        self._loading = len(entries)
        if not entries:
            on_loaded()
        for entry in entries:
            self._executor.submit(self._load, entry)

    def find(self, name: str, version: str = "") -> ServedModel:
        """The model that serves; the newest version where none is given. Raises ModelNotFound or ModelNotReady."""
        model = self._serving.get((name, version))
        if model is not None:
            return model
        raise self._refusal(name, version)

    def entry(self, name: str, version: str = "") -> Entry:
        """The entry whatever its state; the newest version that serves, else the newest. Raises ModelNotFound."""
        versions = self._entries.get(name)
        if versions is None:
            raise self._unknown_model(name)
        if version in versions:
            return versions[version]
        if version:
            raise self._unknown_version(name, version)
        model = self._serving.get((name, ""))
        return versions[model.version] if model else max(versions.values(), key=_version_number)

    def entries(self) -> Iterator[Entry]:
        """Every version of every model, in the order of names and versions."""
        for _, versions in sorted(self._entries.items()):
            yield from sorted(versions.values(), key=_version_number)

    def models(self) -> list[ServedModel]:
        """Every model that has instances."""
        return [entry.model for entry in self.entries() if entry.model is not None]

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Unloads everything: nothing new is taken, `on_drained` is called once all that was accepted is answered."""
        models = self.models()
        left = len(models)

        def drained() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                on_drained()

        for entry in self.entries():
            if entry.state is State.READY:
                self._set_state(entry, State.UNLOADING, "the server is stopping")
        for model in models:
            model.drain(drained)
        if not models:
            on_drained()

    def stop(self) -> None:
        """Fails what still waits and ends the instances after what they run now."""
        for model in self.models():
            model.abort(ServerStopping("the server stopped before the request could run; send it elsewhere"))
            model.stop()

    def close(self, timeout_s: float) -> bool:
        """Waits for the instances and frees the engines; False where one still runs. Blocks."""
        ended = [model.close(timeout_s) for model in self.models()]
        return all(ended)

    def _add(self, source: ModelVersion) -> Entry:
        entry = Entry(source, State.LOADING)
        self._entries.setdefault(source.name, {})[source.version] = entry
        return entry

    def _load(self, entry: Entry) -> None:
        """On a thread of the executor."""
        try:
            loaded: LoadedModel | Exception = load_model(entry.source, self._config)
        except Exception as error:
            loaded = error
        self._reactor.post(self._loaded, entry, loaded)

    def _loaded(self, entry: Entry, loaded: LoadedModel | Exception) -> None:
        if isinstance(loaded, Exception):
            self._finish_loading(entry, loaded)
            return
        entry.model = ServedModel(loaded, self._reactor)
        entry.model.start(lambda error: self._finish_loading(entry, error))

    def _finish_loading(self, entry: Entry, error: Exception | None) -> None:
        if error is None:
            self._set_state(entry, State.READY)
            assert entry.model is not None
            log.info("%s/%s is ready", entry.name, entry.version)
        else:
            if entry.model is not None:
                entry.model.stop()
                self._executor.submit(entry.model.close, self._config.drain_timeout_s)
                entry.model = None
            self._set_state(entry, State.UNAVAILABLE, str(error) or type(error).__name__)
            log.error("%s/%s is unavailable: %s", entry.name, entry.version or "-", entry.reason)
        self._loading -= 1
        if self._loading == 0:
            self._on_loaded()

    def _set_state(self, entry: Entry, state: State, reason: str = "") -> None:
        entry.state, entry.reason = state, reason
        self.generation += 1
        self._serving = {}
        for ready in self.entries():
            if ready.model is not None and ready.state in (State.READY, State.UNLOADING):
                self._serving[ready.name, ready.version] = ready.model
                self._serving[ready.name, ""] = ready.model
        self.on_change()

    def _refusal(self, name: str, version: str) -> Exception:
        versions = self._entries.get(name)
        if versions is None:
            return self._unknown_model(name)
        if version and version not in versions:
            return self._unknown_version(name, version)
        entry = self.entry(name, version)
        label = f"model {name!r}" + (f" version {entry.version}" if entry.version else "")
        if entry.state is State.LOADING:
            return ModelNotReady(f"{label} is loading; send again later")
        return ModelNotReady(f"{label} is unavailable: {entry.reason}")

    def _unknown_model(self, name: str) -> ModelNotFound:
        if not name:
            return ModelNotFound(f"no model name given; wanted is one of {', '.join(sorted(self._entries)) or 'none'}")
        if not self._entries:
            return ModelNotFound(f"model {name!r} is unknown; this server serves no models")
        return ModelNotFound(f"model {name!r} is unknown{nearest(name, self._entries)}")

    def _unknown_version(self, name: str, version: str) -> ModelNotFound:
        known = ", ".join(sorted(self._entries[name], key=_number_of))
        return ModelNotFound(f"model {name!r} has no version {version!r}; it has {known or 'none'}")


def _version_number(entry: Entry) -> tuple[int, str]:
    return _number_of(entry.version)


def _number_of(version: str) -> tuple[int, str]:
    return (int(version) if version.isdecimal() else 0, version)
