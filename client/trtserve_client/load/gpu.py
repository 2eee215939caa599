"""The GPUs of this machine while it is measured, by one nvidia-smi that goes on telling; without one, nothing."""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

_COMMAND = (
    "nvidia-smi",
    "--query-gpu=index,utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
    "-lms",
    "200",
)
_START_S = 10.0
_MIB = 1 << 20


class GpuUse(NamedTuple):
    """The share of time that the busiest GPU was at work, and the memory in use on all of them."""

    share: float = 0.0
    memory_bytes: int = 0


class GpuWatch:
    """What nvidia-smi told last of every GPU. Use it in a `with`, which waits for its first words."""

    def __init__(self) -> None:
        self._uses: dict[str, GpuUse] = {}
        self._told = threading.Event()
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def use(self) -> GpuUse:
        """What is known now; nothing where there is no GPU."""
        uses = [*self._uses.values()]
        return GpuUse(max((each.share for each in uses), default=0.0), sum(each.memory_bytes for each in uses))

    def wait_until_ended(self) -> None:
        """Waits until the program has ended by itself and all its words are taken."""
        if self._reader is not None:
            self._reader.join()

    def __enter__(self) -> GpuWatch:
        # Started once: it takes a second on some machines, and load is sent from this one.
        with suppress(OSError):
            self.process = subprocess.Popen(
                _COMMAND, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
            self._reader.start()
            self._told.wait(_START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._take(line)
        self._told.set()

    def _take(self, line: str) -> None:
        index, *figures = line.split(",")
        if len(figures) != 2:
            return
        # A GPU that is cut into slices (MIG) has no share of its own: "[N/A]".
        share, memory = map(_number, figures)
        self._uses[index] = GpuUse(share / 100, int(memory) * _MIB)
        self._told.set()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
