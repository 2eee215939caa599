"""TensorRT's timing caches on disk: one per TensorRT, GPU and driver, merged under a lock. They save time, no more.

So whatever goes wrong with one is logged, and the build goes on without it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from trtserve_engines.device import GpuIdentity
from trtserve_engines.errors import EngineError
from trtserve_engines.tensorrt import file_lock
from trtserve_engines.tensorrt.engine_key import canonical_json

log = logging.getLogger(__name__)

Combine = Callable[[bytes, bytes], bytes]
"""Makes one timing cache of two. Raises EngineError where they do not fit together."""


class TimingStore:
    """The timing cache of builds with `tensorrt_version` on `gpu`, in `folder`."""

    def __init__(self, folder: Path, tensorrt_version: str, gpu: GpuIdentity) -> None:
        name = hashlib.sha256(canonical_json({"tensorrt": tensorrt_version, "gpu": gpu.key_fields()})).hexdigest()
        self._path = folder / f"{name}.timings"

    def load(self) -> bytes:
        """What is known; empty where nothing is."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            log.warning("the timing cache %s cannot be read: %s", self._path, error.strerror)
            return b""

    def merge(self, base: bytes, new: bytes, combine: Combine) -> None:
        """Keeps `new`, which a build made of `base`; together with what other builds have kept meanwhile."""
        if not new or new == base:
            return
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            with file_lock.held(self._path.with_suffix(".lock")):
                others = self.load()
                self._replace(new if others in (b"", base) else combine(others, new))
        except (OSError, EngineError) as error:
            log.warning("the timings of this build were not kept in %s: %s", self._path, error)

    def _replace(self, data: bytes) -> None:
        partial = self._path.with_suffix(".partial")  # the lock is held: what is there is a killed process's
        with open(partial, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
