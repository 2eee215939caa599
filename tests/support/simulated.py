"""Tests marked `simulated` run in child processes of pytest, which find the stand-in libcuda; each is reported here.

`simulated(FAKE_CUDA_DEVICES="2")` adds environment variables; tests with equal ones share a child. Where the simulated
GPU cannot be made, each test is skipped by name with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.environment import SimulationUnavailable, simulation_environment
from tests.support.environments import ROOT

_TIMEOUT = ("timeout", "--signal=ABRT", "--kill-after=10", "600")
_REPORTS = "TRTSERVE_SIMULATED_REPORTS"

DEFAULTS = {"SIMULATED_TENSORRT_VERSION": "11.4"}
"""What a test that says nothing else gets; named, so that one which asks for it shares the child."""

Variables = tuple[tuple[str, str], ...]


def pytest_configure(config: pytest.Config) -> None:
    """In a child, writes the reports down; elsewhere, runs marked tests in children."""
    if _REPORTS in os.environ:
        config.pluginmanager.register(_ReportWriter(config, Path(os.environ[_REPORTS])))
    else:
        config.pluginmanager.register(_Parent(config))


class _Parent:
    """Runs marked tests in children, all those of one environment when the first of them is due."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reports: dict[Variables, Outcome] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Simulated tests first: between two others they would keep what the first one set up from being torn down."""
        items.sort(key=lambda item: item.get_closest_marker("simulated") is None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Reports what the child said of the test instead of running it here."""
        if item.get_closest_marker("simulated") is None:
            return None
        variables = _variables(item)
        if variables not in self._reports:
            items = [each for each in item.session.items if _variables(each) == variables]
            self._reports[variables] = run_child(self._config, variables, items)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports[variables].of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


class Outcome:
    """What a child said: its reports by test, and how it ended for tests of which it said nothing."""

    def __init__(self, reports: Sequence[pytest.TestReport], missing: str, outcome: str) -> None:
        self._reports: dict[str, list[pytest.TestReport]] = {}
        for report in reports:
            self._reports.setdefault(report.nodeid, []).append(report)
        self._missing = missing
        self._outcome = outcome

    def of(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """The reports of a test; one that was not finished has failed, or was skipped with all others."""
        reports = self._reports.get(item.nodeid, [])
        yield from reports
        if not reports or reports[-1].when != "teardown":
            where = (str(item.path), item.location[1], f"Skipped: {self._missing}")
            yield pytest.TestReport(
                item.nodeid,
                item.location,
                dict.fromkeys(item.keywords, 1),
                self._outcome,
                where if self._outcome == "skipped" else self._missing,
                "setup" if self._outcome == "skipped" else "call",
            )


class _ReportWriter:
    """In a child: each report as a line of JSON."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._file = path.open("w", buffering=1)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Writes the report; flushed by line, so that a crash loses none."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        print(json.dumps(data), file=self._file)

    def pytest_unconfigure(self) -> None:
        """Closes the file."""
        self._file.close()


def _variables(item: pytest.Item) -> Variables | None:
    """What the test wants in its environment, from all its markers; None for one that runs here."""
    marks = list(item.iter_markers("simulated"))
    if not marks:
        return None
    wanted = dict(DEFAULTS)
    for mark in reversed(marks):  # the closest has the last word
        wanted.update(mark.kwargs)
    return tuple(sorted(wanted.items()))


def run_child(config: pytest.Config, variables: Variables, items: Sequence[pytest.Item]) -> Outcome:
    """Runs the items in a process of their own, with these variables in its environment."""
    try:
        simulation = simulation_environment()
    except SimulationUnavailable as error:
        return Outcome([], f"the simulated GPU cannot be made: {error}", "skipped")
    with tempfile.TemporaryDirectory() as folder:
        names, reports = Path(folder, "tests"), Path(folder, "reports")
        names.write_text("\n".join(item.nodeid for item in items))
        reports.touch()
        process = subprocess.run(
            [*_TIMEOUT, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", f"@{names}"],
            cwd=ROOT,
            env={**os.environ, **simulation, **dict(variables), _REPORTS: str(reports)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = [_report(config, json.loads(line)) for line in reports.read_text().splitlines()]
    end = "\n".join(process.stdout.splitlines()[-80:])
    return Outcome(said, f"the child process ended with {process.returncode} before this test did:\n{end}", "failed")


def _report(config: pytest.Config, data: dict[str, Any]) -> pytest.TestReport:
    report: pytest.TestReport = config.hook.pytest_report_from_serializable(config=config, data=data)
    if isinstance(report.longrepr, list):  # of a skipped test; JSON knows no tuples
        report.longrepr = tuple(report.longrepr)
    return report
