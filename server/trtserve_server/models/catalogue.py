"""What models there are: each version with its state, which of them serve, and why another is refused. Changes nothing
by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from trtserve_server.errors import ModelNotFound, ModelNotReady, ServerStopping
from trtserve_server.models.repository import ModelVersion
from trtserve_server.models.served_model import ServedModel
from trtserve_server.options import nearest

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
    """

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

    @property
    def wanted(self) -> bool:
        """Whether it should serve: what was unloaded, or is being, should not."""
        return self.state is not State.UNLOADING and self.reason != UNLOADED


class Catalogue:
    """The entries by name and version. Belongs to the scheduling thread."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}
        self._serving: dict[tuple[str, str], ServedModel] = {}
        self.generation = 0
        """Counts the changes of states: what was found before the last one may not be what serves now."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after every change of a state."""

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
        if not version:
            model = self._serving.get((name, ""))
            return versions[model.version] if model else max(versions.values(), key=_version_number)
        if version in versions:
            return versions[version]
        raise self._unknown_version(name, version)

    def entries(self) -> Iterator[Entry]:
        """Every version of every model, in the order of names and versions."""
        for name in sorted(self._entries):
            yield from self.versions(name)

    def versions(self, name: str) -> list[Entry]:
        """The versions of one model, in their order; none where it is unknown."""
        return sorted(self._entries.get(name, {}).values(), key=_version_number)

    def parts(self, name: str) -> set[str]:
        """The names of the models that a model is composed of; none for one that is a single model or unknown."""
        return {part for entry in self.versions(name) if entry.model is not None for part in entry.model.parts}

    def models(self) -> list[ServedModel]:
        """Every model that has instances."""
        return [entry.model for entry in self.entries() if entry.model is not None]

    def _set_state(self, entry: Entry, state: State, reason: str = "") -> None:
        entry.state, entry.reason = state, reason
        self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self._serving = {}
        for entry in self.entries():
            if entry.state is State.READY and entry.model is not None:
                self._serving[entry.name, entry.version] = entry.model
                self._serving[entry.name, ""] = entry.model
        self.on_change()

    def _refusal(self, name: str, version: str) -> Exception:
        entry = self.entry(name, version)
        label = f"model {name!r}" + (f" version {entry.version}" if entry.version else "")
        if entry.reason == STOPPING:
            return ServerStopping(f"{label} takes no new requests: {STOPPING}; send elsewhere")
        if entry.state is State.LOADING:
            return ModelNotReady(f"{label} is loading; send again later")
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
