"""Files of a model that came with a load request: a folder on disk for as long as the model is being loaded from it."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path, PurePath
from tempfile import mkdtemp

from trtserve_engines.config import ConfigError
from trtserve_server.tensor_config import check_inside

Files = Mapping[str, bytes]
"""Contents by path in the model's folder, for example "1/model.onnx"."""


class GivenFiles:
    """The folder of model `name`, readable by this user only, with `files` in it, among the system's temporary files.

    It is removed with the last of `users` that is done, at the latest when nobody knows of it any more or the process
    ends. Raises ConfigError for names that cannot be, OSError where the disk does not take the files.
    """

    def __init__(self, name: str, files: Files) -> None:
        _check_name(name)
        for path in files:
            check_inside(f"file:{path}", path)
            if not PurePath(path).name:
                raise ConfigError(
                    f"'file:{path}' names no file; wanted is one in the model's folder: file:1/model.onnx"
                )
        parent = mkdtemp(prefix="trtserve-")
        self._remove = weakref.finalize(self, shutil.rmtree, parent, ignore_errors=True)
        self.folder = Path(parent, name)
        self.users = 1
        try:
            for path, content in files.items():
                target = self.folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        except OSError:
            self._remove()
            raise

    def done(self) -> None:
        """One user less; idempotent beyond the last."""
        self.users -= 1
        if self.users <= 0:
            self._remove()

    def remove(self) -> None:
        """Removes the folder, whoever uses it."""
        self._remove()


def _check_name(name: str) -> None:
    """What no folder of a repository can be called is no model's name either."""
    if name != PurePath(name).name or name[0] in "._" or "\0" in name:
        raise ConfigError(f"{name!r} is no name of a model; wanted is one that a folder of a repository can have")
