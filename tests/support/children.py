"""Tests marked `simulated` or `beside` run in child processes of pytest, while the others run; each is reported here.

`simulated(FAKE_CUDA_DEVICES="2")` finds the stand-in libcuda and adds environment variables; tests with equal ones
share a child. Where the simulated GPU cannot be made, each is skipped by name with the reason. `beside` is for files
that wait for most of their time; each gets a child, unless nothing else was asked for. Those of its tests that measure
times are marked `alone`: they run here, before any child does.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tests.simulation.environment import SimulationUnavailable, simulation_environment

_TIMEOUT = ("timeout", "--signal=ABRT", "--kill-after=10", "600")
_REPORTS = "TRTSERVE_TEST_REPORTS"

DEFAULTS = {"SIMULATED_TENSORRT_VERSION": "11.4"}
"""What a simulated test that says nothing else gets; named, so that one which asks for it shares the child."""


class Child(NamedTuple):
    """What the tests of a child have in common: their file, or else the variables of their simulation."""

    file: str = ""
    variables: tuple[tuple[str, str], ...] = ()


Tests = Mapping[Child, Sequence[pytest.Item]]


def pytest_configure(config: pytest.Config) -> None:
    """In a child, writes the reports down; elsewhere, runs marked tests in children."""
    if _REPORTS in os.environ:
        config.pluginmanager.register(_ReportWriter(config, Path(os.environ[_REPORTS])))
    else:
        config.pluginmanager.register(_Parent(config))


class _Parent:
    """Begins the children with the first test that need not be alone: files in one lane, simulations in another."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lanes: list[Lane | NoLane] | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tests that want to be alone first, those of children last: these have the time of all others."""
        items.sort(key=lambda item: (child_of(item) is not None, item.get_closest_marker("alone") is None))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Reports what a child said of the test instead of running it here."""
        if self._lanes is None and item.get_closest_marker("alone") is None:
            self._lanes = lanes_of(self._config, item.session.items)
        if lane := self._lane(item):
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            for report in lane.outcome(item).of(item):
                item.ihook.pytest_runtest_logreport(report=report)
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            return True
        if nextitem is not None and child_of(nextitem) and not child_of(item):
            # The last that runs here: with it goes what it shared with those before.
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            return True
        return None

    def pytest_sessionfinish(self) -> None:
        """Ends what still runs where the session was cut short."""
        for lane in self._lanes or ():
            lane.close()

    def _lane(self, item: pytest.Item) -> Lane | NoLane | None:
        return next((lane for lane in self._lanes or () if child_of(item) in lane.tests), None)


def child_of(item: pytest.Item) -> Child | None:
    """The child that the test belongs to, by all its markers; None for one that runs here."""
    marks = list(item.iter_markers("simulated"))
    if marks:
        wanted = dict(DEFAULTS)
        for mark in reversed(marks):  # the closest has the last word
            wanted.update(mark.kwargs)
        return Child(variables=tuple(sorted(wanted.items())))
    beside = item.get_closest_marker("beside") and not item.get_closest_marker("alone")
    return Child(str(item.path)) if beside else None


def lanes_of(config: pytest.Config, items: Sequence[pytest.Item]) -> list[Lane | NoLane]:
    """Begins the children of all these tests."""
    tests: dict[Child | None, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(child_of(item), []).append(item)
    files = {child: group for child, group in tests.items() if child and child.file}
    simulations = {child: group for child, group in tests.items() if child and not child.file}
    lanes: list[Lane | NoLane] = []
    if files and len({item.path for item in items}) > 1:  # else there is nothing to run beside
        lanes.append(Lane(config, files, {}))
    if simulations:
        try:
            lanes.append(Lane(config, simulations, simulation_environment()))
        except SimulationUnavailable as error:
            lanes.append(NoLane(simulations, f"the simulated GPU cannot be made: {error}"))
    return lanes


class Lane:
    """Children that run one after another from now on, with `environment` in addition to their own.

    A process leads them, so that nothing comes and goes in this one, whose threads and descriptors tests count.
    """

    def __init__(self, config: pytest.Config, tests: Tests, environment: Mapping[str, str]) -> None:
        self.tests = tests
        self._config = config
        self._scratch = tempfile.TemporaryDirectory(prefix="trtserve-tests-")
        self._folders = {child: Path(self._scratch.name, str(number)) for number, child in enumerate(tests)}
        self._waited_for = list(tests)
        self._outcomes: dict[Child, Outcome] = {}
        script = "\n".join(self._command(child, environment) for child in tests)
        self._process = subprocess.Popen(
            ["sh", "-c", script], cwd=config.rootpath, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )

    def outcome(self, item: pytest.Item) -> Outcome:
        """What the test's child said; waits for its end."""
        wanted = child_of(item)
        while wanted not in self._outcomes:
            child = self._waited_for.pop(0)
            code = self._process.stdout.readline().strip()
            self._outcomes[child] = self._said(self._folders[child], code)
        return self._outcomes[wanted]

    def close(self) -> None:
        """Ends the children that still run."""
        leader = psutil.Process(self._process.pid)
        for process in (leader, *leader.children(recursive=True)):  # first the one that would begin the next
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        self._process.communicate()
        self._scratch.cleanup()

    def _command(self, child: Child, environment: Mapping[str, str]) -> str:
        """A line for a shell: runs the tests of a child and says its exit code."""
        folder = self._folders[child]
        folder.mkdir()
        names, reports = folder / "tests", folder / "reports"
        names.write_text("\n".join(item.nodeid for item in self.tests[child]))
        reports.touch()
        variables = {**environment, **dict(child.variables), _REPORTS: str(reports)}
        assignments = [f"{name}={value}" for name, value in variables.items()]
        pytest_of_them = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", f"@{names}")
        command = shlex.join(["env", *assignments, *_TIMEOUT, *pytest_of_them])
        return f"{command} >{shlex.quote(str(folder / 'output'))} 2>&1; echo $?"

    def _said(self, folder: Path, code: str) -> Outcome:
        lines = (folder / "reports").read_text().splitlines()
        end = "\n".join((folder / "output").read_text(errors="replace").splitlines()[-80:])
        missing = f"the child process ended with {code} before this test did:\n{end}"
        return Outcome([_report(self._config, json.loads(line)) for line in lines], missing, "failed")


class NoLane:
    """In the place of one whose simulated GPU cannot be made: every test is skipped, with the reason."""

    def __init__(self, tests: Tests, reason: str) -> None:
        self.tests = tests
        self._outcome = Outcome([], reason, "skipped")

    def outcome(self, item: pytest.Item) -> Outcome:
        """The same for all."""
        return self._outcome

    def close(self) -> None:
        """Nothing runs."""


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


def _report(config: pytest.Config, data: dict[str, Any]) -> pytest.TestReport:
    report: pytest.TestReport = config.hook.pytest_report_from_serializable(config=config, data=data)
    if isinstance(report.longrepr, list):  # of a skipped test; JSON knows no tuples
        report.longrepr = tuple(report.longrepr)
    return report
