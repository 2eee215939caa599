"""Builds in a child process: builds in this one would leak memory, could not be cancelled and could take it down.

Progress and log lines come back over a pipe, the plan in a file without a name, so that nothing is left behind however
either side ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trtserve_engines.errors import BuildCancelledError, BuildError
from trtserve_engines.tensorrt.build_job import BuildJob, error_of_message
from trtserve_engines.tensorrt.progress import Progress

log = logging.getLogger(__name__)

_EXIT_TIMEOUT_S = 60.0
_LAST_LINES = 8


@dataclass(frozen=True)
class BuildOutcome:
    """A finished build. `plan` is mapped from a file that has no name; `recipe_tool` is what rewrote the graph."""

    plan: mmap.mmap
    timing_cache: bytes
    tensorrt_version: str
    seconds: float
    warnings: tuple[str, ...]
    recipe_tool: str


def _log_line(level: int, message: str) -> None:
    log.log(level, "%s", message)


class BuildProcess:
    """One build. `wait` runs on the thread that wants the result and calls the callbacks there; `cancel` on any."""

    def __init__(
        self,
        job: BuildJob,
        *,
        work_folder: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[int, str], None] = _log_line,
    ) -> None:
        """Starts it. `work_folder` needs room for the plan and, with a precision recipe, for the rewritten graph."""
        self._job = job
        self._on_progress = on_progress
        self._on_log = on_log
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._is_cancelled = False
        self._cleanup = contextlib.ExitStack()
        with contextlib.ExitStack() as on_failure:
            on_failure.enter_context(self._cleanup)
            self._start(work_folder)
            on_failure.pop_all()

    def wait(self) -> BuildOutcome:
        """The outcome. Raises the build's own error, BuildCancelledError, or BuildError where the process crashed."""
        with self._cleanup:
            result: dict[str, Any] = {}
            for line in self._channel:
                message = json.loads(line)
                self._hear(message)
                if "done" in message or "error" in message:
                    result = message
            self._await_exit()
            if self._is_cancelled:
                raise BuildCancelledError(f"the build of {self._job.model} was cancelled", self._lines)
            if "error" in result:
                raise error_of_message(result)
            if not result:
                raise self._crash()
            return self._outcome(result)

    def cancel(self) -> None:
        """Kills the process and all that it has started; `wait` then raises BuildCancelledError."""
        self._is_cancelled = True
        self._kill()

    def _start(self, work_folder: Path | None) -> None:
        files = self._cleanup
        self._plan: IO[bytes] = files.enter_context(tempfile.TemporaryFile(dir=work_folder))  # noqa: SIM115
        self._output: IO[bytes] = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        scratch = files.enter_context(tempfile.TemporaryDirectory(prefix="trtserve-build-", dir=work_folder))
        reader, writer = os.pipe()
        self._channel = files.enter_context(os.fdopen(reader, encoding="utf-8"))
        command = [sys.executable, "-P", "-m", "trtserve_engines.tensorrt.build_worker"]
        try:
            self._process = subprocess.Popen(
                [*command, str(writer), str(self._plan.fileno()), scratch],
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(writer, self._plan.fileno()),
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent, which then cancels
                text=True,
            )
        finally:
            os.close(writer)
        self._cleanup.callback(self._end)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has crashed already; `wait` says so
            self._process.stdin.write(self._job.to_json() + "\n")
            self._process.stdin.flush()

    def _hear(self, message: dict[str, Any]) -> None:
        if "progress" in message and self._on_progress is not None:
            self._on_progress(Progress(*message["progress"]))
        elif "level" in message:
            self._lines.append(message["log"])
            self._on_log(message["level"], message["log"])

    def _outcome(self, message: dict[str, Any]) -> BuildOutcome:
        return BuildOutcome(
            plan=mmap.mmap(self._plan.fileno(), 0, access=mmap.ACCESS_READ),
            timing_cache=bytes.fromhex(message["timing_cache"]),
            tensorrt_version=message["tensorrt_version"],
            seconds=message["seconds"],
            warnings=tuple(message["warnings"]),
            recipe_tool=message["recipe_tool"],
        )

    def _crash(self) -> BuildError:
        self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - 4096))
        output = self._output.read().decode(errors="replace").splitlines()
        lines = [line for line in [*self._lines, *output] if line.strip()][-_LAST_LINES:]
        said = "; its last lines: " + " | ".join(lines) if lines else "; it said nothing"
        return BuildError(
            f"the build process of {self._job.model} {_ending(self._process.returncode)}{said}."
            " Other models are not affected; a signal SIGKILL often means that memory ran out",
            lines,
        )

    def _await_exit(self) -> None:
        """It has closed its end of the pipe; what hangs after that (a driver) is killed."""
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()

    def _end(self) -> None:
        """Whatever happened, no process remains."""
        self._kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _kill(self) -> None:
        # Once its exit was collected, the number may be another process's.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code} and without a result"
