"""The worker processes as one: starts them, gives each its share of a load, gathers what they tell, ends them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection as Pipe, wait
from types import TracebackType
from typing import Any

from trtserve_client.load.errors import UnreachableError, WorkerError
from trtserve_client.load.jobs import Connection, Failed, Finished, Job, Plan, Progress, Ready, Stop

_START_S = 60.0
_WAIT_S = 0.1
_AHEAD_S = 0.1

OnProgress = Callable[[int, Progress], None]


class Fleet:
    """So many workers on one connection's settings, each with its part of the messages. Use it in a `with`."""

    def __init__(self, connection: Connection, messages: Sequence[bytes], workers: int) -> None:
        self._workers: list[_Worker] = []
        try:
            for number in range(workers):
                own = messages[number::workers] or messages
                self._workers.append(_Worker(number, Plan(connection, own)))
            for worker in self._workers:
                worker.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._workers)

    def run(self, jobs: Sequence[Job], on_progress: OnProgress, stop: threading.Event) -> list[Finished]:
        """Has the first workers do a job each; `stop` ends them early. Raises WorkerError where one is lost."""
        workers = self._workers[: len(jobs)]
        for worker, job in zip(workers, jobs, strict=True):
            worker.send(job)
        finished: dict[int, Finished] = {}
        stopped = False
        while len(finished) < len(jobs):
            if stop.is_set() and not stopped:
                stopped = True
                for worker in workers:
                    worker.send(Stop())
            for worker in self._heard(workers, finished):
                message = worker.receive()
                if isinstance(message, Progress):
                    on_progress(worker.number, message)
                elif isinstance(message, Finished):
                    finished[worker.number] = message
        return [finished[worker.number] for worker in workers]

    def close(self) -> None:
        """Ends every process."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.wait()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _heard(self, workers: Sequence[_Worker], finished: dict[int, Finished]) -> list[_Worker]:
        pipes: dict[Any, _Worker] = {worker.pipe: worker for worker in workers if worker.number not in finished}
        return [pipes[pipe] for pipe in wait(list(pipes), _WAIT_S)]


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, number: int, plan: Plan) -> None:
        self.number = number
        # A file, not a pipe: a worker that writes much must not wait for a reader.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trtserve_client.load.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                # Ctrl-C is for the harness, which then asks the workers to end.
                start_new_session=True,
            )
        self.pipe = Pipe(ours.detach())
        self.send(plan)

    def wait_until_ready(self) -> None:
        if not self.pipe.poll(_START_S):
            raise WorkerError(f"worker {self.number} did not start within {_START_S:g} s")
        message = self.receive()
        if isinstance(message, Failed):
            raise UnreachableError(message.reason)
        assert isinstance(message, Ready)

    def send(self, message: Plan | Job | Stop | None) -> None:
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._lost() from None

    def receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._lost() from None

    def close(self) -> None:
        """Closing the pipe ends the process, unless it hangs."""
        self.pipe.close()

    def wait(self) -> None:
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def _lost(self) -> WorkerError:
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._log.seek(0)
        last = (self._log.read().strip().splitlines() or ["it wrote nothing"])[-1]
        return WorkerError(f"worker {self.number} (process {self.process.pid}) {how}; its last words: {last}")


def monotonic_start() -> float:
    """A time that all workers can still begin at together: the monotonic clock is one for all processes."""
    return time.monotonic() + _AHEAD_S
