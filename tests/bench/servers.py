"""Servers in processes of their own, for the length of a benchmark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from trtserve_server.grpc_listener import prefer_quick_listener


@contextmanager
def baseline() -> Iterator[str]:
    """The baseline server; gives its HOST:PORT."""
    with _process([sys.executable, "-m", "tests.bench.baseline_server"], r"^(\d+)$") as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def echo() -> Iterator[str]:
    """Our transport without a server behind it; gives its HOST:PORT."""
    environment = dict(os.environ)
    prefer_quick_listener(environment)  # as the server does
    with _process([sys.executable, "-m", "tests.bench.echo_server"], r"^(\d+)$", environment) as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def trtserve(*arguments: str) -> Iterator[str]:
    """Our server with these arguments; gives its HOST:PORT."""
    command = [sys.executable, "-m", "trtserve_server", "--grpc-address", "127.0.0.1:0", "--http-address", ""]
    with _process([*command, "--log-level", "warning", *arguments], r"gRPC +127\.0\.0\.1:(\d+)") as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def _process(command: Sequence[str], pattern: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if match := re.search(pattern, line):
                yield match[1]
                break
        else:
            raise RuntimeError(f"{' '.join(command)} ended without naming its port")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
