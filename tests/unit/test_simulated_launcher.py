"""How tests that run in a child process are reported where there is no child, or it dies."""

import pytest

from tests.simulation import environment
from tests.support.simulated import Outcome, run_child


def test_without_a_compiler_a_test_is_skipped_with_the_reason(request, monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = run_child(request.config, (), [request.node])
    (report,) = outcome.of(request.node)
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
