"""What tells one content of a model's files from another without reading them: path, size, time, inode, readability."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

Fingerprint = tuple[tuple[str, int, int, int, bool], ...]
"""One entry per file, sorted by path; size in bytes, time of the last change of the content in ns."""


def folder_fingerprint(folder: Path) -> Fingerprint:
    """Of every file below the folder; links to files count as what they lead to."""
    return fingerprint(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)


def fingerprint(paths: Iterable[Path]) -> Fingerprint:
    """Of these files; those that do not exist are left out."""
    return tuple(sorted(_entries(paths)))


def _entries(paths: Iterable[Path]) -> Iterator[tuple[str, int, int, int, bool]]:
    for path in paths:
        try:
            stat = path.stat()
        except (OSError, ValueError):  # gone meanwhile, or a name that no file can have
            continue
        yield str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino, os.access(path, os.R_OK)
