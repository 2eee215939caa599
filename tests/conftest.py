"""Fixtures for all tests: a factory of real servers, and the examples' folder."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Builds of ONNX Runtime for Linux carry telemetry; it reads this when it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import pytest

from tests.support import as_the_command as as_the_command
from tests.support.children import pytest_configure as pytest_configure
from tests.support.running_server import RunningServer

ROOT = Path(__file__).resolve().parent.parent

Serve = Callable[..., RunningServer]


def pytest_collection_finish() -> None:
    """Takes what was imported and collected out of sight of the search for garbage, which some tests call for often."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers with the options of ServerConfig; they end with the test."""
    servers: list[RunningServer] = []

    def start(**options: Any) -> RunningServer:
        servers.append(RunningServer(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT
