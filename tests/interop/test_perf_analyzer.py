"""Triton's load generator against our server, and whether the server's statistics that it shows add up."""

from __future__ import annotations

import re
from typing import Any

import pytest

REQUESTS = 60
PARTS = ("overhead", "queue", "compute input", "compute infer", "compute output")
MODES = {
    "unary": ([], 1),
    "stream": (["--async", "--streaming", "--concurrency-range", "4"], 1),
    "batches of 8": (["-b", "8"], 8),
    "shared memory": (["--shared-memory", "system"], 1),
    "shared memory on a stream": (["--shared-memory", "system", "--async", "--streaming", "-b", "8"], 8),
    "request rate": (["--request-rate-range", "50"], 1),
}


def server_side(report: str) -> dict[str, int]:
    """The numbers of the section on the server."""
    section = report.split("  Server: \n")[1]
    counts = {name: int(number) for name, number in re.findall(r"^    ([\w ]+ count): (\d+)$", section, re.M)}
    line = re.search(r"Avg request latency: (\d+) usec \((.*)\)", section)
    assert line, report
    return (
        counts
        | {"latency": int(line[1])}
        | {name: int(number) for name, number in re.findall(r"([a-z][a-z ]*) (\d+) usec", line[2].replace("+ ", ""))}
    )


@pytest.mark.parametrize("mode", MODES)
def test_perf_analyzer_reports_statistics_that_add_up(serve: Any, root: Any, perf_analyzer: Any, mode: str) -> None:
    arguments, rows = MODES[mode]
    server = serve(model_repository=(str(root / "examples" / "models"),), allow_client_shared_memory=True)
    statistics = server.app.registry.find("digits").statistics
    report = perf_analyzer(
        *("-m", "digits", "-u", server.url, "-i", "grpc", "--request-count", str(REQUESTS), "--max-threads", "2"),
        *arguments,
    )
    assert f"    Request count: {REQUESTS}\n" in report
    given = server_side(report)
    # It reads the server's counts while its first and last requests are on their way.
    requests = given["Successful request count"]
    assert REQUESTS - 4 <= requests <= REQUESTS + 4
    assert given["Inference count"] == rows * requests
    assert 0 < given["Execution count"] <= requests
    assert sum(given[part] for part in PARTS) == pytest.approx(given["latency"], abs=len(PARTS))
    assert given["overhead"] <= given["latency"] / 2
    assert (statistics.inferences, sum(statistics.failures.values())) == (rows * statistics.requests.count, 0)
    assert statistics.executions == sum(phases.count for phases in statistics.per_batch.values())
