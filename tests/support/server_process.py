"""A server in a process of its own, as a user starts it, and what it writes and ends with."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.oip_client import WAIT_S

ROOT = Path(__file__).resolve().parents[2]


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without options of the server, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRTSERVE_")}
    return {**kept, **variables}


class ServerProcess:
    """Listens on ports that the system chooses. `module` is what Python runs; see scripted_server for another."""

    def __init__(
        self, *arguments: str, module: str = "trtserve_server", environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        ports = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *ports, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=clean_environment(**(environment or {})),
        )
        self._banner = ""
        # Ends the reading of a banner that never comes, and with it the test.
        self._watchdog = threading.Timer(3 * WAIT_S, self._process.kill)
        self._watchdog.start()

    @property
    def banner(self) -> str:
        """What is written at the end of the start; waits for it."""
        assert self._process.stdout is not None
        while "Try next:" not in self._banner:
            line = self._process.stdout.readline()
            if not line:
                raise AssertionError(f"no banner:\n{self._banner}{self.log}")
            self._banner += line
        self._watchdog.cancel()
        return self._banner

    @property
    def url(self) -> str:
        """HOST:PORT of gRPC, from the banner."""
        return self._address(r"gRPC +(\S+)")

    @property
    def metrics_url(self) -> str:
        """Where the metrics are, from the banner."""
        return self._address(r"metrics +(\S+)")

    @property
    def log(self) -> str:
        """What has been logged so far."""
        self._log.seek(0)
        return self._log.read()

    @property
    def resident_bytes(self) -> int:
        """The memory that the process has in RAM now."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def maps(self, name: str) -> bool:
        """Whether a library of this name is loaded."""
        return name in Path(f"/proc/{self._process.pid}/maps").read_text()

    @property
    def cpu_seconds(self) -> float:
        """What all threads of the process have used of the processor until now."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait(WAIT_S)

    def close(self) -> None:
        """Ends the process if it still runs."""
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def _address(self, pattern: str) -> str:
        match = re.search(pattern, self.banner)
        assert match, self.banner
        return match[1]


class RemoteGate:
    """A gate for engines of another process: each that comes to it connects, and goes on when it is let go."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S)
        self._held: list[socket.socket] = []

    @property
    def environment(self) -> dict[str, str]:
        """What tells the other process where the gate is."""
        return {"GATE_PORT": str(self._listener.getsockname()[1])}

    def wait(self) -> None:
        """Waits until another one has come; it is held."""
        self._held.append(self._listener.accept()[0])

    def open(self) -> None:
        """Lets everyone go who is held now."""
        while self._held:
            self._held.pop().close()

    def close(self) -> None:
        """Lets everyone go, now and later."""
        self.open()
        self._listener.close()


def hold_at(port: int) -> None:
    """In the other process: comes to the gate and waits there; goes on at once where there is none any more."""
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.recv(1)
    except OSError:
        return


def run(*arguments: str, **environment: str) -> Any:
    """A `trtserve` that is expected to end by itself: its exit code, stdout and stderr."""
    return subprocess.run(
        [sys.executable, "-m", "trtserve_server", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env=clean_environment(**environment),
        check=False,
    )
