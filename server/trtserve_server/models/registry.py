"""Loads and unloads models, and lets one take another's place. Here states change; ensembles' also in `assembly`.

LOADING → READY → UNLOADING → UNAVAILABLE or gone       LOADING → UNAVAILABLE, with the reason
A version that is loaded again stays READY: what it was made of before serves until its successor is warm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from trtserve_engines.errors import DeviceLostError, EngineNotBuiltError
from trtserve_engines.step import Cancel, Step, Watch
from trtserve_server.config import ServerConfig
from trtserve_server.errors import ServerStopping
from trtserve_server.models.assembly import Assembly, needed_by
from trtserve_server.models.catalogue import STOPPING, UNLOADED, Entry, State, is_current
from trtserve_server.models.countdown import after
from trtserve_server.models.departures import Departures
from trtserve_server.models.ensemble import LoadedEnsemble, load_ensemble
from trtserve_server.models.loader import LoadedModel, load_model
from trtserve_server.models.model import Model
from trtserve_server.models.repository import ModelVersion
from trtserve_server.models.response_cache import ResponseCache
from trtserve_server.models.served_model import ServedModel
from trtserve_server.models.step_reporter import StepReporter
from trtserve_server.scheduling.host import Host

log = logging.getLogger(__name__)

OnReplaced = Callable[[Sequence[str]], None]
"""Gets the reasons of the versions that could not be loaded; none where all serve."""

Loaded = LoadedModel | LoadedEnsemble | Exception


@dataclass
class _Replacement:
    """A model on its way to other versions: `left` of them still load."""

    wanted: dict[str, ModelVersion]
    on_done: OnReplaced
    left: int = 0
    failures: list[str] = field(default_factory=list)


class Registry(Assembly):
    """The models by name and version. Belongs to the scheduling thread.

    Loading runs in `loading`, freeing in `freeing`, so that it does not wait for what takes long to load, and what
    has to build an engine first in `building`, where it may have to wait for its GPU.
    """

    def __init__(
        self, config: ServerConfig, host: Host, loading: Executor, freeing: Executor, building: Executor
    ) -> None:
        super().__init__(
            host.reactor, ResponseCache(config.response_cache_bytes) if config.response_cache_bytes else None
        )
        self._config = config
        self._host = host
        self._loading = loading
        self._building = building
        self._departures = Departures(host.reactor, freeing, config.drain_timeout_s)
        self._cancel_builds = Cancel()
        self._awaited: dict[Model, Cancel] = {}  # what serves until its engine is built, and what ends the build

    def load(self, sources: Iterable[ModelVersion], on_loaded: Callable[[], None]) -> None:
        """Loads every source at the same time; calls `on_loaded` once each is READY or UNAVAILABLE."""
        by_name: dict[str, list[ModelVersion]] = {}
        for source in sources:
            by_name.setdefault(source.name, []).append(source)
        if not by_name:
            on_loaded()
        ended = after(len(by_name), on_loaded)
        for name, versions in by_name.items():
            self.replace(name, versions, lambda reasons: ended())

    def replace(self, name: str, sources: Iterable[ModelVersion], on_done: OnReplaced) -> None:
        """Makes exactly these versions of a model serve. To be called again for it only after `on_done`.

        What serves already and is unchanged stays. What changed is loaded beside the old one and takes its place when
        it is warm; the old one answers all that it has accepted. Versions that are no longer wanted go when every
        wanted one is READY, and stay where one failed.
        """
        replacement = _Replacement({source.version: source for source in sources}, on_done)
        versions = self._entries.setdefault(name, {})
        for version in [version for version, entry in versions.items() if not entry.wanted]:
            if version not in replacement.wanted:
                del versions[version]
        changed = [source for source in replacement.wanted.values() if not is_current(versions, source)]
        for source in changed:
            entry = versions.get(source.version)
            if entry is None or entry.state is not State.READY:
                versions[source.version] = Entry(source, State.LOADING)
        replacement.left = len(changed)
        self._changed(name)
        for source in changed:
            self._loading.submit(self._load, replacement, source)
        if not changed:
            self._settle(name, replacement)

    def unload(self, name: str, on_unloaded: Callable[[], None]) -> None:
        """Takes nothing new for a model, answers what was accepted, frees its memory, calls `on_unloaded`.

        Its versions stay in the index as UNAVAILABLE. Raises ModelNotFound.
        """
        if name not in self._entries:
            raise self._unknown_model(name)
        entries = self.versions(name)
        ended = after(len(entries), on_unloaded)

        def unloaded(entry: Entry) -> None:
            self._set_state(entry, State.UNAVAILABLE, UNLOADED)
            ended()

        for entry in entries:
            self._unload(entry, UNLOADED, partial(unloaded, entry))

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Unloads everything: nothing new is taken, `on_drained` is called once all that was accepted is answered."""
        self._begin_stop()
        self._drain_the_unneeded()
        self._departures.when_none(on_drained)

    def stop(self) -> None:
        """Fails what still waits, ends builds, and the instances after what they run now."""
        self._begin_stop()
        for cancel in (self._cancel_builds, *self._awaited.values()):
            cancel.set()
        for model in self._running():
            model.abort(ServerStopping("the server stopped before the request could run; send it elsewhere"))
            model.stop()

    def close(self, timeout_s: float) -> bool:
        """Waits for the instances and frees the engines; False where one still runs. Blocks."""
        return self._departures.close(self._running(), timeout_s)

    def _begin_stop(self) -> None:
        self._stopping = True
        self._departures.stop()

    def _load(self, replacement: _Replacement, source: ModelVersion) -> None:
        """On a thread of `loading`."""
        try:
            loaded: Loaded = (
                load_ensemble(source)
                if source.config.ensemble
                else load_model(source, self._config, Watch(may_build=False))
            )
        except EngineNotBuiltError as error:
            log.info("%s/%s waits for its engine: %s", source.name, source.version, error)
            self._building.submit(self._build, source, self._cancel_builds, partial(self._loaded, replacement, source))
            return
        except Exception as error:
            loaded = error
        self._host.reactor.post(self._loaded, replacement, source, loaded)

    def _build(self, source: ModelVersion, cancel: Cancel, then: Callable[[LoadedModel | Exception], None]) -> None:
        """On a thread of `building`."""
        steps = StepReporter(
            f"{source.name}/{source.version}", partial(self._host.reactor.post, self.note_step, source)
        )
        try:
            loaded: LoadedModel | Exception = load_model(source, self._config, Watch(steps.report, cancel))
        except Exception as error:
            loaded = error
        self._host.reactor.post(then, loaded)

    def _await_engine(self, entry: Entry, model: Model) -> None:
        """The model serves until its engine is built, which then takes its place."""
        cancel = self._awaited[model] = Cancel()
        then = partial(self._engine_built, entry, entry.source, model)
        self._building.submit(self._build, entry.source, cancel, then)

    def _engine_built(self, entry: Entry, source: ModelVersion, model: Model, loaded: LoadedModel | Exception) -> None:
        source.loaded()
        if isinstance(loaded, Exception):
            self._engine_ready(entry, model, None, loaded)
        else:
            successor = ServedModel(loaded, self._host, self._cache)
            successor.start(partial(self._engine_ready, entry, model, successor))

    def _engine_ready(self, entry: Entry, model: Model, successor: ServedModel | None, error: Exception | None) -> None:
        self._note_lost_device(entry.source, error)
        was_awaited = self._awaited.pop(model, None) is not None and not self._stopping
        if was_awaited and error is not None:
            entry.step = Step(f"the CPU serves on, because its engine failed: {error}")
            log.error("%s/%s: %s", entry.name, entry.version, entry.step)
        elif not was_awaited and entry.model not in self._awaited:
            entry.step = None
        if not was_awaited or error is not None:
            if successor is not None:
                self._departures.free(successor)
            return
        entry.model, entry.step = successor, None
        log.info("%s/%s: its engine is ready and takes the place of the CPU", entry.name, entry.version)
        self._changed(entry.name)
        self._drain(model, partial(self._departures.free, model))

    def _loaded(self, replacement: _Replacement, source: ModelVersion, loaded: Loaded) -> None:
        if isinstance(loaded, Exception):
            self._finish_loading(replacement, source, None, loaded)
            return
        if isinstance(loaded, LoadedEnsemble):
            self._assemble(loaded, partial(self._finish_loading, replacement, source))
            return
        model = ServedModel(loaded, self._host, self._cache)
        model.on_broken(partial(self._broken, model))
        model.start(partial(self._finish_loading, replacement, source, model))

    def _finish_loading(
        self, replacement: _Replacement, source: ModelVersion, model: Model | None, error: Exception | None
    ) -> None:
        self._note_lost_device(source, error)
        if self._stopping:
            error = ServerStopping(STOPPING)
        entry = self._entries[source.name][source.version]
        if error is None:
            old, entry.model, entry.source = entry.model, model, source
            entry.step = None
            self._set_state(entry, State.READY)
            log.info("%s/%s is ready", source.name, source.version)
            if model is not None and model.awaits_engine:
                self._await_engine(entry, model)
            else:
                source.loaded()
            if old is not None:
                self._drain(old, partial(self._departures.free, old))
        else:
            if model is not None:
                self._departures.free(model)
            entry.step = None
            source.loaded()
            reason = str(error) or type(error).__name__
            replacement.failures.append(reason)
            self._fail(entry, source, reason)
        replacement.left -= 1
        if replacement.left == 0:
            self._settle(source.name, replacement)

    def _note_lost_device(self, source: ModelVersion, error: Exception | None) -> None:
        if isinstance(error, DeviceLostError):
            self._host.on_device_lost(f"loading {source.name}/{source.version}: {error}")

    def _fail(self, entry: Entry, source: ModelVersion, reason: str) -> None:
        label = f"{source.name}/{source.version or '-'}"
        if entry.model is None:
            entry.source = source
            self._set_state(entry, State.UNAVAILABLE, reason)
            log.error("%s is unavailable: %s", label, reason)
        elif not self._stopping:
            self._set_state(entry, entry.state, f"what was loaded before serves on; loading it again failed: {reason}")
            log.error("%s serves on as it was; loading it again failed: %s", label, reason)

    def _broken(self, model: Model, reason: str) -> None:
        """Nothing is left that could run the model: it is unavailable until it is loaded again."""
        for entry in self.entries():
            if entry.model is model and entry.state is State.READY:
                entry.model = None
                self._set_state(entry, State.UNAVAILABLE, reason)
                self._departures.free(model)

    def _settle(self, name: str, replacement: _Replacement) -> None:
        """All wanted versions have been tried: those that are not wanted may go."""
        if not replacement.failures and not self._stopping:
            for version, entry in tuple(self._entries[name].items()):
                if version not in replacement.wanted:
                    self._unload(entry, "other versions are served now", partial(self._forget, entry))
        if not self._entries.get(name):
            self._entries.pop(name, None)
        self._changed(name)
        replacement.on_done(replacement.failures)

    def _unload(self, entry: Entry, reason: str, then: Callable[[], None]) -> None:
        model = entry.model
        if model is None or entry.state is State.UNLOADING:
            then()
            return
        self._set_state(entry, State.UNLOADING, reason)

        def drained() -> None:
            entry.model = None
            self._departures.free(model, then)

        log.info("%s/%s is being unloaded: %s", entry.name, entry.version, reason)
        self._drain(model, drained)

    def _forget(self, entry: Entry) -> None:
        versions = self._entries.get(entry.name, {})
        if versions.get(entry.version) is entry:
            del versions[entry.version]
            if not versions:
                del self._entries[entry.name]
            self._changed(entry.name)

    def _drain_the_unneeded(self) -> None:
        """Drains what no ensemble needs any more; the others follow when the last such ensemble is drained."""
        ready = [entry.model for entry in self.entries() if entry.state is State.READY and entry.model is not None]
        needed = needed_by((*ready, *self._departures.draining))
        for entry in tuple(self.entries()):
            if entry.state is State.READY and entry.model is not None and entry.name not in needed:
                self._set_state(entry, State.UNLOADING, STOPPING)
                self._drain(entry.model, self._drain_the_unneeded if needed else lambda: None)

    def _drain(self, model: Model, then: Callable[[], None]) -> None:
        if cancel := self._awaited.pop(model, None):
            cancel.set()
        self._departures.drain(model, then)

    def _running(self) -> set[Model]:
        return {*self.models(), *self._departures.draining}
