"""Loads and unloads models by name, at the start, on request and as the repositories change: one operation after
another for each model. How a model is loaded is the registry's matter, what is on disk the repository's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.options import nearest
from trtserve_engines.script import parse_script
from trtserve_server.config import ServerConfig
from trtserve_server.errors import (
    InvalidRequest,
    LoadFailed,
    ModelControlOff,
    ModelNotFound,
    RequestError,
    ServerStopping,
)
from trtserve_server.models.catalogue import STOPPING
from trtserve_server.models.countdown import after
from trtserve_server.models.given_files import Files
from trtserve_server.models.poller import RepositoryPoller
from trtserve_server.models.registry import Registry
from trtserve_server.models.repository import (
    Found,
    ModelVersion,
    check_files,
    find_model,
    given_model,
    model_names,
    scan,
)
from trtserve_server.scheduling.reactor import Reactor

log = logging.getLogger(__name__)

Done = Callable[[RequestError | None], None]
Operation = Callable[[Done], None]


@dataclass(frozen=True)
class Given:
    """What a load request brings along: the configuration's values and, only with them, the files of the folder."""

    values: Mapping[str, Any] | None = None
    files: Files = field(default_factory=dict)


class ModelControl:
    """The three modes of model control. Belongs to the scheduling thread; looking at the disk runs in `executor`.

    Raises ConfigError where a repository or file does not exist, or a model to be loaded at the start is in none.
    """

    def __init__(self, config: ServerConfig, registry: Registry, reactor: Reactor, executor: Executor) -> None:
        self._config = config
        self._registry = registry
        self._reactor = reactor
        self._executor = executor
        self._waiting: dict[str, deque[tuple[Operation, Done]]] = {}
        self._stopping = False
        check_files(config)
        self._first = _to_be_loaded(config, scan(config))
        self._poller: RepositoryPoller | None = None
        if config.model_control_mode == "poll":
            self._poller = RepositoryPoller(
                partial(scan, config), self._follow, reactor, executor, config.repository_poll_interval_s
            )

    @property
    def on_request(self) -> bool:
        """Whether models are loaded and unloaded on request."""
        return self._config.model_control_mode == "explicit"

    def start(self, on_loaded: Callable[[], None]) -> None:
        """Loads what is to be there from the start; calls `on_loaded` once each is READY or UNAVAILABLE."""

        def loaded() -> None:
            if self._poller is not None and not self._stopping:
                self._poller.start(self._first)
            on_loaded()

        self._registry.load([version for versions in self._first.values() for version in versions], loaded)

    def stop(self) -> None:
        """Begins nothing new and fails what has not begun."""
        self._stopping = True
        if self._poller is not None:
            self._poller.stop()
        for operations in tuple(self._waiting.values()):
            while len(operations) > 1:
                operations.pop()[1](ServerStopping(STOPPING))

    def load(self, name: str, given: Given, on_done: Done) -> None:
        """Loads what is on disk under `name`, but for what is `given` in its place.

        What serves already and is unchanged stays. Raises ModelControlOff.
        """
        self._check_mode("loaded")
        self._enqueue(name, partial(self._load, name, given), on_done)

    def unload(self, name: str, on_done: Done, *, dependents: bool = False) -> None:
        """Unloads a model; `on_done` comes when its requests are answered and its memory is freed.

        `dependents` unloads the models that it is composed of as well, after it. Raises ModelControlOff.
        """
        self._check_mode("unloaded")
        parts = self._registry.parts(name) if dependents else ()

        def unloaded(error: RequestError | None) -> None:
            if error is not None or not parts:
                on_done(error)
            else:
                self._unload_all(parts, on_done)

        self._enqueue(name, partial(self._unload, name), unloaded)

    def _unload_all(self, names: Collection[str], on_done: Done) -> None:
        ended = after(len(names), partial(on_done, None))
        for name in names:
            # Without a look at the error: one that is not there needs no unloading.
            self._enqueue(name, partial(self._unload, name), lambda error: ended())

    def names(self) -> list[str]:
        """The models that could be loaded: all on disk. From any thread, blocking. Raises ConfigError."""
        return model_names(self._config)

    def _check_mode(self, what: str) -> None:
        mode = self._config.model_control_mode
        if not self.on_request:
            how = "they follow their repositories" if mode == "poll" else "they are loaded at the start"
            raise ModelControlOff(
                f"models cannot be {what} on request: the server runs with --model-control-mode {mode}, in which {how};"
                " start it with --model-control-mode explicit"
            )

    def _enqueue(self, name: str, operation: Operation, on_done: Done) -> None:
        if self._stopping:
            on_done(ServerStopping(STOPPING))
            return
        operations = self._waiting.setdefault(name, deque())
        operations.append((operation, on_done))
        if len(operations) == 1:
            self._begin(name)

    def _begin(self, name: str) -> None:
        operation, _ = self._waiting[name][0]
        operation(partial(self._ended, name))

    def _ended(self, name: str, error: RequestError | None) -> None:
        operations = self._waiting[name]
        _, on_done = operations.popleft()
        on_done(error)
        if operations:
            self._begin(name)
        else:
            del self._waiting[name]

    def _load(self, name: str, given: Given, done: Done) -> None:
        def look() -> None:
            self._reactor.post(self._found, name, self._look(name, given), done)

        self._executor.submit(look)

    def _look(self, name: str, given: Given) -> Found | RequestError:
        try:
            if given.values is not None and given.files:
                found = given_model(self._config, name, given.values, given.files)
            else:
                found = find_model(self._config, name, given.values)
            if found:
                return {**self._look_for_components(found), name: found}
            names = self.names()
            return ModelNotFound(f"model {name!r} is in no repository{nearest(name, names) if names else ''}")
        except ConfigError as error:
            return InvalidRequest(str(error)) if given.values is not None else LoadFailed(str(error))
        except OSError as error:
            return LoadFailed(f"the files given for model {name!r} cannot be stored: {error.strerror}")
        except Exception as error:  # whatever it is, the operations behind this one must have their turn
            log.exception("looking for model %r failed", name)
            return LoadFailed(f"looking for model {name!r} failed with {type(error).__name__}; the log has the details")

    def _look_for_components(self, ensembles: Sequence[ModelVersion]) -> Found:
        """The models of the steps of ensembles, and of ensembles among them, as far as they are on disk."""
        found: dict[str, list[ModelVersion]] = {}
        names = components_of(ensembles)
        while names:
            name = names.pop()
            if name not in found and (versions := find_model(self._config, name)):
                found[name] = versions
                names += components_of(versions)
        return found

    def _found(self, name: str, found: Found | RequestError, done: Done) -> None:
        if isinstance(found, RequestError):
            done(found)
        elif self._stopping:
            done(ServerStopping(STOPPING))
        else:
            for component, versions in found.items():
                if component != name and not self._registry.serves(component):
                    self._enqueue(component, partial(self._replace, component, versions), lambda error: None)
            self._replace(name, found[name], done)

    def _replace(self, name: str, versions: Sequence[ModelVersion], done: Done) -> None:
        def replaced(failures: Sequence[str]) -> None:
            reasons = "; ".join(failures)
            done(LoadFailed(f"model {name!r} cannot be loaded: {reasons}") if failures else None)

        self._registry.replace(name, versions, replaced)

    def _unload(self, name: str, done: Done) -> None:
        try:
            self._registry.unload(name, partial(done, None))
        except ModelNotFound as error:
            done(error)

    def _follow(self, name: str, versions: Sequence[ModelVersion]) -> None:
        self._enqueue(name, partial(self._replace, name, versions), lambda error: None)


def _to_be_loaded(config: ServerConfig, found: Found) -> Found:
    """What is loaded at the start. A model given as a file or a script always is: it was asked for by name."""
    if config.model_control_mode != "explicit" or "*" in config.load_model:
        return found
    for name in config.load_model:
        if name not in found:
            raise ConfigError(f"load_model: {name!r} is in no repository{nearest(name, found) if found else ''}")
    names = [*config.load_model, *(Path(file).stem for file in config.model)]
    names += [parse_script(script).name for script in config.scripted]
    wanted = set()
    while names:
        name = names.pop()
        if name not in wanted:
            wanted.add(name)
            names += components_of(found.get(name, ()))
    return {name: versions for name, versions in found.items() if name in wanted}


def components_of(versions: Iterable[ModelVersion]) -> list[str]:
    """The names of the models that the steps of ensembles need; none for other models."""
    return list(dict.fromkeys(step.model for version in versions for step in version.config.ensemble))
