"""What models there are: each version with its state, which of them serve, and why another is refused. Changes nothing
by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from trtserve_engines.options import nearest
from trtserve_engines.step import Step
from trtserve_server.errors import ModelNotFound, ModelNotReady, ServerStopping
from trtserve_server.metrics import Build
from trtserve_server.models.model import Model
from trtserve_server.models.repository import ModelVersion

UNLOADED = "unloaded"
STOPPING = "the server is stopping"


class State(Enum):
    """The states of Triton's repository index."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(eq=False)
class Entry:
    """One version of one model. `model` is there while the state is READY, and UNLOADING until it is drained.

    `source` is what `model` was made of, or what could not be loaded. READY with a reason: loading it again failed.
    `step` says how far the build of the model's engine is, while there is one.
    """

    source: ModelVersion
    state: State
    reason: str = ""
    model: Model | None = None
    step: Step | None = None

    @property
    def note(self) -> str:
        """The reason, or how far the model's build is."""
        return self.reason or (str(self.step) if self.step else "")

    @property
    def name(self) -> str:
        """The model's name."""
        return self.source.name

    @property
    def version(self) -> str:
        """The version; "" where none could be told."""
        return self.source.version

    @property
    def wanted(self) -> bool:
        """Whether it should serve: what was unloaded, or is being, should not."""
        return self.state is not State.UNLOADING and self.reason != UNLOADED


class Catalogue:
    """The entries by name and version. Belongs to the scheduling thread."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}
        self._serving: dict[str, dict[str, Model]] = {}  # by name and version, "" for the newest
        self.generation = 0
        """Counts the changes of states: what was found before the last one may not be what serves now."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after every change of a state."""

    def find(self, name: str, version: str = "") -> Model:
        """The model that serves; the newest version where none is given. Raises ModelNotFound or ModelNotReady."""
        versions = self._serving.get(name)
        if versions is not None and version in versions:
            return versions[version]
        raise self._refusal(name, version)

    def serves(self, name: str, version: str = "") -> bool:
        """Whether `find` would give a model."""
        return version in self._serving.get(name, ())

    def entry(self, name: str, version: str = "") -> Entry:
        """The entry whatever its state; the newest version that serves, else the newest. Raises ModelNotFound."""
        versions = self._entries.get(name)
        if versions is None:
            raise self._unknown_model(name)
        if not version:
            serving = self._serving.get(name)
            return versions[serving[""].version] if serving else max(versions.values(), key=_version_number)
        if version in versions:
            return versions[version]
        raise self._unknown_version(name, version)

    def entries(self) -> Iterator[Entry]:
        """Every version of every model, in the order of names and versions."""
        for name in self.names():
            yield from self.versions(name)

    def names(self) -> list[str]:
        """The names of all models, in their order."""
        return sorted(self._entries)

    def versions(self, name: str) -> list[Entry]:
        """The versions of one model, in their order; none where it is unknown."""
        return sorted(self._entries.get(name, {}).values(), key=_version_number)

    def parts(self, name: str) -> set[str]:
        """The names of the models that a model is composed of; none for one that is a single model or unknown."""
        return {part for entry in self.versions(name) if entry.model is not None for part in entry.model.parts}

    def models(self) -> list[Model]:
        """Every model that has instances."""
        return [entry.model for entry in self.entries() if entry.model is not None]

    def note_step(self, source: ModelVersion, step: Step) -> None:
        """Takes note of how far the build of a version's engine is, if it is still waited for."""
        entry = self._entries.get(source.name, {}).get(source.version)
        awaits = entry is not None and (entry.model.awaits_engine if entry.model else entry.state is State.LOADING)
        if entry is not None and awaits:
            entry.step = step

    def builds(self) -> list[Build]:
        """The engines that are being built, or are waited for. From any thread."""
        steps = [(entry, entry.step) for entry in self.entries()]
        return [Build(entry.name, entry.version, (step.percent or 0.0) / 100) for entry, step in steps if step]

    def _set_state(self, entry: Entry, state: State, reason: str = "") -> None:
        entry.state, entry.reason = state, reason
        self._changed(entry.name)

    def _changed(self, name: str) -> None:
        self.generation += 1
        serving: dict[str, Model] = {}
        for entry in self.versions(name):
            if entry.state is State.READY and entry.model is not None:
                serving[entry.version] = serving[""] = entry.model
        self._serving[name] = serving
        if not serving:
            del self._serving[name]
        self.on_change()

    def _refusal(self, name: str, version: str) -> Exception:
        entry = self.entry(name, version)
        label = f"model {name!r}" + (f" version {entry.version}" if entry.version else "")
        if entry.reason == STOPPING:
            return ServerStopping(f"{label} takes no new requests: {STOPPING}; send elsewhere")
        if entry.state is State.LOADING:
            return ModelNotReady(f"{label} is loading{f' ({entry.step})' if entry.step else ''}; send again later")
        if entry.state is State.UNLOADING:
            return ModelNotReady(f"{label} takes no new requests: it is being unloaded")
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


def is_current(versions: Mapping[str, Entry], source: ModelVersion) -> bool:
    """Whether nothing is to be done: this very source serves, and nothing failed to take its place since."""
    entry = versions.get(source.version)
    return entry is not None and entry.state is State.READY and entry.source == source and not entry.reason
