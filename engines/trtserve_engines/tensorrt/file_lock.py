"""A lock that processes and threads share through a file. The system frees it when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from trtserve_engines.errors import EngineCacheError

_POLL_S = 0.05


@contextmanager
def held(path: Path, cancel: Event | None = None, on_wait: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Holds the lock for the block; waits for it, and calls `on_wait` once where it has to.

    Gives False, without the lock, where `cancel` was set before the lock was free.
    """
    cancel = cancel or Event()
    descriptor = _try_lock(path)
    if descriptor is None:
        on_wait()
    while descriptor is None:
        if cancel.wait(_POLL_S):
            yield False
            return
        descriptor = _try_lock(path)
    with _released(path, descriptor):
        yield True


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Holds the lock for the block; gives False at once where someone else has it."""
    descriptor = _try_lock(path)
    if descriptor is None:
        yield False
        return
    with _released(path, descriptor):
        yield True


@contextmanager
def _released(path: Path, descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        # Removed while it is still held, so that nobody can hold a file that is no longer there.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EngineCacheError(f"the lock {path} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_there(path, descriptor):
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at `path`: its last holder may have removed it in between."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
