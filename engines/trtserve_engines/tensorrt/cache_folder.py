"""The folder that engines are kept in: where it is by default, and whether it can be trusted.

An engine is native code, so nobody but its user may be able to write where engines are kept.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from trtserve_engines.errors import EngineCacheError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def default_folder(environment: Mapping[str, str]) -> Path:
    """trtserve/engines in the user's cache folder, as the XDG base directory specification names it."""
    base = environment.get("XDG_CACHE_HOME", "")
    # The specification says that a relative path is to be ignored.
    cache = Path(base) if os.path.isabs(base) else Path(environment.get("HOME") or Path.home()) / ".cache"
    return cache / "trtserve" / "engines"


def prepare_folder(folder: Path) -> None:
    """Makes the folder where it is missing, for its user alone. Raises EngineCacheError where it cannot be trusted."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise EngineCacheError(
            f"the engine cache {folder} cannot be made: {error.strerror}; choose another with --engine-cache"
        ) from error
    _check_trust(folder, status)


def read_secret(path: Path) -> bytes:
    """The secret that entries are authenticated with. Raises EngineCacheError."""
    try:
        status, secret = path.stat(), path.read_bytes().strip()
    except OSError as error:
        raise EngineCacheError(f"the engine cache's key {path} cannot be read: {error.strerror}") from error
    if status.st_mode & stat.S_IRWXO:
        raise EngineCacheError(
            f"the engine cache's key {path} is open to every user (mode {stat.S_IMODE(status.st_mode):04o});"
            f" run: chmod 600 {path}"
        )
    if len(secret) < 16:
        raise EngineCacheError(
            f"the engine cache's key {path} has {len(secret)} bytes; at least 16 are wanted,"
            " for example from: openssl rand -hex 32"
        )
    return secret


def _check_trust(folder: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise EngineCacheError(
            f"the engine cache {folder} belongs to user {status.st_uid}, trtserve runs as user {os.geteuid()}."
            " Engines are native code, so only its own user's are loaded:"
            f" run chown -R {os.geteuid()} {folder}, or choose another with --engine-cache"
        )
    if status.st_mode & _OTHERS:
        raise EngineCacheError(
            f"the engine cache {folder} is open to other users (mode {stat.S_IMODE(status.st_mode):04o})."
            f" Engines are native code, so nobody else may write here: run chmod 700 {folder}"
        )
