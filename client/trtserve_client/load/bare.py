"""The model without any server, for the protocol's price: the engine that trtserve would use, in a process of its own.

The client knows no engines, so it starts trtserve_engines.bare_run where that is installed, and reads what it writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from trtserve_client.load.collector import Collector, run_from_collected
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import UsageError, WorkerError
from trtserve_client.load.fleet import monotonic_start
from trtserve_client.load.jobs import OK, Progress
from trtserve_client.load.lanes import OnView
from trtserve_client.load.loads import Load, window_of
from trtserve_client.load.recorder import buckets_from_outcomes
from trtserve_client.load.results import Run, ServerUse
from trtserve_client.load.sources import Request

_MODULE = "trtserve_engines.bare_run"


class BareLane:
    """The bare engine as a lane. Use it in a `with`."""

    def __init__(self, name: str, config: LoadConfig, request: Request) -> None:
        self.name = name
        self._config = config
        self._request = request

    def __enter__(self) -> BareLane:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="trtserve-load-"))
            self._folder = Path(folder)
            inputs = self._folder / "inputs.npz"
            np.savez(inputs, **_plain(self._request))
            command = [sys.executable, "-m", _MODULE, self._config.model_file, str(inputs)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(self._end)
            self._ask(None, UsageError)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(self, load: Load, stop: threading.Event, on_view: OnView) -> Run:
        """See Lane."""
        window = window_of(load, self._config, monotonic_start())
        result = self._folder / "result.npy"
        ends = min(window.ends, window.measured + self._config.duration_s)
        job = {
            "concurrency": load.concurrency,
            "begins": window.begins,
            "measured": window.measured,
            # A count means nothing to an engine that nobody sends to; a time does.
            "ends": ends,
            "result": str(result),
        }
        answer = self._ask(job, WorkerError)
        outcomes = [(ended, latency, ended, OK) for ended, latency in np.load(result).tolist()]
        collector = Collector(window)
        collector.add(0, Progress(window.measured, answer["cpu_s"][0], {}))
        collector.add(0, Progress(ends, answer["cpu_s"][1], buckets_from_outcomes(outcomes, window)))
        on_view(collector)
        return run_from_collected(
            collector,
            [],
            due=0,
            tolerance_percent=self._config.stability_percent,
            machine_cpu=0.0,
            server=ServerUse(),
            batches={},
            server_is_here=False,
            interrupted=stop.is_set(),
        )

    def _ask(self, job: dict[str, Any] | None, problem: type[UsageError] | type[WorkerError]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            if job is not None:
                self._process.stdin.write(json.dumps(job) + "\n")
                self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            words = self._process.stderr.read().strip().splitlines() or ["it wrote nothing"]
            if "No module named" in words[-1]:
                raise UsageError(
                    f"the bare engine needs the server's packages: pip install 'trtserve[server]' ({words[-1]})"
                )
            raise problem(f"the bare engine of {self._config.model_file} ended: {words[-1]}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


def _plain(request: Request) -> dict[str, Any]:
    """Arrays that can be saved without pickle: strings as fixed-width bytes."""
    return {name: array.astype(bytes) if array.dtype == object else array for name, array in request.items()}
