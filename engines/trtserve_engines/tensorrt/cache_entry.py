"""One engine on disk: a folder with the plan and a sidecar that says what it is. Writes and reads it, checks it.

Knows nothing of keys that are looked for, locks or limits.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from trtserve_engines.errors import DamagedEntryError
from trtserve_engines.tensorrt.engine_key import EngineKey, canonical_json

PLAN = "plan"
SIDECAR = "entry.json"
_PIECE = 1 << 24


@dataclass(frozen=True)
class Sidecar:
    """What is known of an engine without deserialising it. `created` is in seconds since 1970."""

    key: Mapping[str, Any]
    plan_sha256: str
    plan_bytes: int
    build_s: float
    created: float
    model_path: str
    io: tuple[Mapping[str, Any], ...] = ()
    accuracy: Mapping[str, Any] | None = None
    memory: Mapping[str, int] | None = None
    hmac: str = ""

    @property
    def digest(self) -> str:
        """The digest of its key."""
        return EngineKey(self.key).digest

    def signed(self, secret: bytes) -> Sidecar:
        """The same with an HMAC over all of it, and by the plan's digest over the plan."""
        return replace(self, hmac=self._mac(secret))

    def is_signed(self, secret: bytes) -> bool:
        """Whether its HMAC was made with `secret`."""
        return hmac.compare_digest(self.hmac, self._mac(secret))

    def text(self) -> str:
        """As the file's text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def _mac(self, secret: bytes) -> str:
        return hmac.new(secret, canonical_json({**asdict(self), "hmac": ""}), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class StoredEngine:
    """A checked entry. `plan` is its memory-mapped file."""

    sidecar: Sidecar
    plan: mmap.mmap


def write_entry(folder: Path, plan: Any, sidecar: Sidecar) -> None:
    """Writes plan and sidecar into the new folder `folder`, down to the disk. Raises OSError."""
    folder.mkdir(mode=0o700)
    _write(folder / PLAN, plan)
    _write(folder / SIDECAR, sidecar.text().encode())
    sync_folder(folder)


def read_sidecar(folder: Path, directory: int | None = None) -> Sidecar:
    """The sidecar of an entry. Raises FileNotFoundError where there is none, DamagedEntryError.

    `directory` is the open folder, where it must not be another one meanwhile.
    """
    with _open(SIDECAR, folder, directory) as file:
        text = file.read()
    try:
        values = json.loads(text)
        sidecar = Sidecar(**{**values, "io": tuple(values["io"])})
        missing = [field.name for field in fields(Sidecar) if field.name not in values]
        if missing or not isinstance(sidecar.key, dict):
            raise ValueError(f"{missing or 'key'}")
        digest = sidecar.digest
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedEntryError(f"its {SIDECAR} is not one that trtserve writes: {error}") from None
    if digest != folder.name:
        raise DamagedEntryError(f"its {SIDECAR} belongs to another key, {digest[:12]}...")
    return sidecar


def read_entry(folder: Path, secret: bytes | None) -> StoredEngine:
    """The entry, every byte checked. Raises FileNotFoundError where there is none, DamagedEntryError."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sidecar = read_sidecar(folder, directory)
        if secret is not None and not sidecar.is_signed(secret):
            problem = "does not fit the key" if sidecar.hmac else "is missing, though a key is configured"
            raise DamagedEntryError(f"its HMAC {problem}")
        with _open(PLAN, folder, directory) as file:
            return StoredEngine(sidecar, _mapped(file, sidecar))
    finally:
        os.close(directory)


def plan_digest(plan: Any) -> str:
    """SHA-256 of a plan, in hex."""
    sha = hashlib.sha256()
    view = memoryview(plan)
    for start in range(0, view.nbytes, _PIECE):
        sha.update(view[start : start + _PIECE])
    return sha.hexdigest()


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mapped(file: BinaryIO, sidecar: Sidecar) -> mmap.mmap:
    size = os.fstat(file.fileno()).st_size
    if size != sidecar.plan_bytes or size == 0:
        raise DamagedEntryError(f"its plan has {size} bytes; {sidecar.plan_bytes} were written")
    plan = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    digest = plan_digest(plan)
    if digest != sidecar.plan_sha256:
        plan.close()
        raise DamagedEntryError(f"its plan has the SHA-256 {digest[:12]}..., not {sidecar.plan_sha256[:12]}...")
    return plan


def _open(name: str, folder: Path, directory: int | None) -> BinaryIO:
    def opener(path: str, flags: int) -> int:
        return os.open(path, flags, dir_fd=directory)

    return open(name if directory is not None else folder / name, "rb", opener=opener)


def _write(path: Path, data: Any) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
