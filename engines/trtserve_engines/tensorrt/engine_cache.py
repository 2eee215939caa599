"""A content-addressed store of engines on disk, shared by processes. Stores and finds; builds and loads nothing.

engines/KEY/plan, entry.json     whole or not there: an entry appears by one rename
partial/KEY                      being written or removed by the holder of KEY's lock
damaged/KEY                      set aside, never served
locks/KEY, locks/GPU-UUID        see file_lock.py
timings/                         see timing_store.py
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from trtserve_engines.errors import DamagedEntryError, EngineCacheError
from trtserve_engines.tensorrt import file_lock
from trtserve_engines.tensorrt.cache_entry import (
    PLAN,
    Sidecar,
    StoredEngine,
    read_entry,
    read_sidecar,
    sync_folder,
    write_entry,
)
from trtserve_engines.tensorrt.cache_folder import prepare_folder
from trtserve_engines.tensorrt.engine_key import Change, EngineKey, changes

log = logging.getLogger(__name__)

REASON = "reason.txt"
_FOLDERS = ("engines", "partial", "damaged", "locks")


@dataclass(frozen=True)
class Listed:
    """An entry as `list` shows it. `problem` says why it is not usable; its sidecar is then None."""

    digest: str
    size_bytes: int
    last_used: float
    sidecar: Sidecar | None
    problem: str = ""


class EngineCache:
    """The store in `folder`. `max_bytes` of 0 sets no limit; with `secret` only entries signed with it are used."""

    def __init__(self, folder: Path, *, max_bytes: int = 0, secret: bytes | None = None) -> None:
        prepare_folder(folder)
        self.folder = folder
        self._max_bytes = max_bytes
        self._secret = secret
        try:
            for name in _FOLDERS:
                (folder / name).mkdir(mode=0o700, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise _unwritable(folder, error) from error

    @property
    def timings_folder(self) -> Path:
        """Where the timing caches of builds are kept."""
        return self.folder / "timings"

    def find(self, key: EngineKey) -> StoredEngine | None:
        """The engine of a key, checked byte by byte; None where there is none. Raises DamagedEntryError."""
        folder = self._entry(key.digest)
        try:
            stored = read_entry(folder, self._secret)
        except FileNotFoundError:
            return None
        except DamagedEntryError as error:
            raise DamagedEntryError(f"engine {key.digest[:12]}... in {self.folder} is damaged: {error}") from None
        except OSError as error:
            raise DamagedEntryError(
                f"engine {key.digest[:12]}... in {self.folder} cannot be read: {error.strerror}"
            ) from error
        self._touch(folder)
        return stored

    def lock(
        self, key: EngineKey, cancel: Event | None = None, on_wait: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[bool]:
        """Holds the key for a block, so that one process builds and the others wait; see file_lock.held."""
        return file_lock.held(self._lock(key.digest), cancel, on_wait)

    def lock_gpu(
        self, uuid: str, cancel: Event | None = None, on_wait: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[bool]:
        """Holds a GPU for a block, so that one process builds on it; see file_lock.held. After `lock`, never before."""
        return file_lock.held(self._lock(uuid), cancel, on_wait)

    def publish(self, key: EngineKey, plan: Any, sidecar: Sidecar) -> None:
        """Keeps an engine, whole or not at all. The caller holds the key's lock. Raises EngineCacheError."""
        partial, entry = self._partial(key.digest), self._entry(key.digest)
        try:
            _remove(partial)
            write_entry(partial, plan, sidecar.signed(self._secret) if self._secret else sidecar)
            _remove(entry)
            partial.rename(entry)
            sync_folder(entry.parent)
        except OSError as error:
            _remove(partial)
            raise EngineCacheError(
                f"the engine ({sidecar.plan_bytes} bytes) cannot be kept in {self.folder}: {error.strerror};"
                " free space there or choose another folder with --engine-cache"
            ) from error
        if self._max_bytes and sum(entry.size_bytes for entry in self._listed()) > self._max_bytes:
            self.prune(max_bytes=self._max_bytes, keep=key.digest)

    def set_aside(self, digest: str, reason: str) -> Path:
        """Moves a damaged entry to where it is never served from. The caller holds the key's lock."""
        target = self.folder / "damaged" / digest
        try:
            _remove(target)
            self._entry(digest).rename(target)
            (target / REASON).write_text(f"{reason}\n")
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        return target

    def entries(self) -> list[Listed]:
        """Every entry, the one that was used last first. Reads the sidecars alone."""
        return sorted(self._listed(), key=lambda entry: -entry.last_used)

    def damaged(self) -> dict[str, str]:
        """The entries that were set aside, each with its reason."""
        found = {}
        for folder in sorted((self.folder / "damaged").iterdir()):
            reason = folder / REASON
            found[folder.name] = reason.read_text().strip() if reason.exists() else "no reason was written"
        return found

    def closest(self, key: EngineKey, model_path: str) -> tuple[Change, ...] | None:
        """How the most similar entry of the same model or file differs from `key`; None where there is no such one."""
        candidates = [
            changes(entry.sidecar.key, key.fields)
            for entry in self.entries()
            if entry.sidecar and (entry.sidecar.key.get("model") == key.model or entry.sidecar.model_path == model_path)
        ]
        return min(candidates, key=len, default=None)

    def verify(self, digest: str) -> str:
        """Reads an entry whole; what is wrong with it, "" where nothing is."""
        try:
            read_entry(self._entry(digest), self._secret).plan.close()
        except (DamagedEntryError, OSError) as error:
            return str(error)
        return ""

    def prune(self, *, max_bytes: int | None = None, unused_since: float | None = None, keep: str = "") -> list[str]:
        """Removes what was set aside, what was last used before `unused_since`, then the least recently used
        until at most `max_bytes` are left. What another process writes now, and `keep`, stay. Gives the digests.
        """
        for folder in (self.folder / "damaged").iterdir():
            shutil.rmtree(folder, ignore_errors=True)  # another process may do the same
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        removed = []
        for entry in reversed(entries):
            too_old = unused_since is not None and entry.last_used < unused_since
            too_much = max_bytes is not None and total > max_bytes
            if entry.digest != keep and (too_old or too_much) and self.remove(entry.digest):
                total -= entry.size_bytes
                removed.append(entry.digest)
        if removed:
            log.info("engines removed from %s: %d", self.folder, len(removed))
        return removed

    def remove(self, digest: str) -> bool:
        """Removes an entry; False where another process writes it now."""
        with file_lock.held_if_free(self._lock(digest)) as is_held:
            if is_held:
                partial = self._partial(digest)
                _remove(partial)
                with contextlib.suppress(FileNotFoundError):  # another process was quicker
                    self._entry(digest).rename(partial)
                _remove(partial)
        return is_held

    def _listed(self) -> Iterator[Listed]:
        for folder in (self.folder / "engines").iterdir():
            try:
                size, last_used = _plan_size(folder), folder.stat().st_mtime
            except FileNotFoundError:
                continue
            try:
                yield Listed(folder.name, size, last_used, read_sidecar(folder))
            except (DamagedEntryError, OSError) as error:
                yield Listed(folder.name, size, last_used, None, str(error))

    def _sweep(self) -> None:
        """Removes what killed processes left: whatever has no lock that is held."""
        left = {path.name for name in ("partial", "locks") for path in (self.folder / name).iterdir()}
        for digest in left:
            with file_lock.held_if_free(self._lock(digest)) as is_held:
                if is_held:
                    _remove(self._partial(digest))

    def _touch(self, folder: Path) -> None:
        try:
            os.utime(folder, (now := time.time(), now))
        except OSError as error:
            log.debug("%s: its use cannot be noted: %s", folder, error)

    def _entry(self, digest: str) -> Path:
        return self.folder / "engines" / digest

    def _partial(self, digest: str) -> Path:
        return self.folder / "partial" / digest

    def _lock(self, digest: str) -> Path:
        return self.folder / "locks" / digest


def _plan_size(folder: Path) -> int:
    plan = folder / PLAN
    return plan.stat().st_size if plan.exists() else 0


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _unwritable(folder: Path, error: OSError) -> EngineCacheError:
    return EngineCacheError(
        f"the engine cache {folder} cannot be written: {error.strerror}; choose another with --engine-cache"
    )
