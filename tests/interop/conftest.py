"""Stock clients live in an environment of their own: their pins are not ours."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.environments import ROOT, RegistryUnreachable, environment
from tests.support.perf_analyzer import NotRunnable, find_perf_analyzer

RunScript = Callable[..., str]
PerfAnalyzer = Callable[..., str]


@pytest.fixture(scope="session")
def tritonclient_python() -> Path:
    """A Python that has tritonclient with what it pins itself."""
    try:
        return environment("interop", ["tritonclient[grpc]", "ml_dtypes"])
    except RegistryUnreachable as error:
        if os.environ.get("REQUIRE_STOCK_CLIENTS"):
            pytest.fail(f"the packages of the stock clients cannot be installed: {error}")
        pytest.skip(f"stock clients cannot be installed here: {error}")


@pytest.fixture(scope="session")
def perf_analyzer() -> PerfAnalyzer:
    """Runs Triton's load generator, which is in one wheel of tritonclient, and gives its report.

    Skipped by name where it cannot be had: it is a program for Linux on x86-64 that wants two libraries.
    """
    try:
        program = find_perf_analyzer()
    except RegistryUnreachable as error:
        if os.environ.get("REQUIRE_STOCK_CLIENTS"):
            pytest.fail(f"the packages of perf_analyzer cannot be installed: {error}")
        pytest.skip(f"perf_analyzer cannot be installed here: {error}")
    except NotRunnable as error:
        pytest.skip(f"perf_analyzer cannot run here: {error}")
    return program.run


@pytest.fixture
def run_script(tritonclient_python: Path) -> RunScript:
    """Runs a script of this folder with tritonclient and our client on its path; gives what it printed."""

    def run(name: str, *arguments: str) -> str:
        paths = os.pathsep.join(str(ROOT / folder) for folder in ("protos", "client"))
        script = Path(__file__).parent / name
        result = subprocess.run(
            [tritonclient_python, script, *arguments],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run
