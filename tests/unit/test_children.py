"""Tests that run in child processes: what is reported of them, also where there is no child, or it dies."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.simulation import environment
from tests.support.children import Outcome, lanes_of

ROOT = Path(__file__).resolve().parents[2]

BESIDE = """
import os
import pytest

pytestmark = pytest.mark.beside

def test_another_process():
    assert "TRTSERVE_TEST_REPORTS" in os.environ

def test_that_fails():
    assert 1 == 2

@pytest.mark.skip(reason="because")
def test_that_is_skipped():
    pass

def test_that_ends_the_process():
    os.abort()

def test_after_it():
    pass

@pytest.mark.alone
def test_that_measures_times():
    assert "TRTSERVE_TEST_REPORTS" not in os.environ
"""
HERE = """
import os
import pytest

@pytest.fixture(scope="session")
def shared():
    yield
    assert 3 == 4

def test_this_process(shared):
    assert "TRTSERVE_TEST_REPORTS" not in os.environ
"""
WAITS = """
import os
from pathlib import Path
import pytest

pytestmark = pytest.mark.beside

def test_that_waits():
    os.mkfifo("never")
    Path("waits").write_text(str(os.getpid()))
    open("never").read()
"""
FAILS = """
import os

def test_that_fails():
    while not os.path.exists("waits"):
        os.sched_yield()
    assert 1 == 2
"""


@pytest.fixture
def run(tmp_path):
    """Runs pytest on files of their own, in children as these tests do: exit code and output."""
    (tmp_path / "conftest.py").write_text("from tests.support.children import pytest_configure\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    alone\n    beside\n    simulated\n")

    def start(files, *words):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    return start


def test_what_became_of_each_test_is_reported(run):
    code, output = run({"test_beside.py": BESIDE, "test_here.py": HERE}, "-rA")
    assert code == 1
    for line in (
        "PASSED test_beside.py::test_that_measures_times",
        "PASSED test_here.py::test_this_process",
        "ERROR test_here.py::test_this_process - assert 3 == 4",
        "PASSED test_beside.py::test_another_process",
        "FAILED test_beside.py::test_that_fails - assert 1 == 2",
        ": because",
        "FAILED test_beside.py::test_that_ends_the_process - the child process ended with 134",
        "FAILED test_beside.py::test_after_it - the child process ended with 134",
    ):
        assert line in output
    assert "3 failed, 3 passed, 1 skipped, 1 error in" in output.splitlines()[-1]


def test_a_file_that_is_alone_runs_here(run):
    code, output = run({"test_beside.py": BESIDE}, "-k", "another_process")
    assert (code, "1 failed, 5 deselected" in output) == (1, True)


def test_a_session_that_is_cut_short_ends_its_children(run, tmp_path):
    code, output = run({"test_waits.py": WAITS, "test_fails.py": FAILS}, "-x")
    assert (code, "1 failed in" in output) == (1, True)
    assert not psutil.pid_exists(int((tmp_path / "waits").read_text()))


def test_without_a_compiler_a_test_is_skipped_with_the_reason(request, monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    request.node.add_marker("simulated")
    (lane,) = lanes_of(request.config, [request.node])
    (report,) = lane.outcome(request.node).of(request.node)
    assert (report.nodeid, report.outcome, report.when) == (request.node.nodeid, "skipped", "setup")
    assert "the simulated GPU cannot be made: there is no compiler here: none of cc, gcc was found" in str(
        report.longrepr
    )


def report(item, when, outcome="passed"):
    return pytest.TestReport(item.nodeid, item.location, {}, outcome, None, when)


def test_a_test_that_the_child_did_not_finish_has_failed(request):
    begun = [report(request.node, "setup")]
    for said in ([], begun):
        last = list(Outcome(said, "the child process ended with -11", "failed").of(request.node))[-1]
        assert (last.outcome, last.longrepr) == ("failed", "the child process ended with -11")


def test_a_test_that_the_child_finished_is_reported_as_it_was(request):
    said = [report(request.node, "setup"), report(request.node, "call", "failed"), report(request.node, "teardown")]
    assert list(Outcome(said, "unused", "failed").of(request.node)) == said
