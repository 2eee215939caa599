"""Reads files that others have put there: regular ones only, because a pipe or a device would hold the reader up."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, for a pipe, a socket or a device too."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a folder is an error of its own
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.read_bytes()
