"""The harness against a real server whose latencies, stalls and failures are known, because a script makes them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.models import make_models
from tests.support.running_server import RunningServer
from tests.support.server_process import ServerProcess
from trtserve_client import Client
from trtserve_client.load.cli import main

pytestmark = pytest.mark.beside

WAIT_S = 60.0
SCRIPTS = (
    "steady:latency_ms=5:instances=8:max_batch_size=0:shape=1x16",
    "two:latency_ms=500/1000:instances=1:max_batch_size=0:shape=1x16",
    "stalls:latency_ms=1:stall_batch=30:stall_ms=500",
    "stallsagain:latency_ms=1:stall_batch=30:stall_ms=500",
    "quick:latency_ms=5:max_batch_size=0:shape=1x16",
    "slow:latency_ms=50:max_batch_size=0:shape=1x16",
    "fails:latency_ms=1:fail_every=4",
    "batches:latency_ms=20:max_batch_size=4",
    "dead:latency_ms=0:fail_every=1",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("load")
    model = make_models.save(make_models.linear(16, 8), folder / "linear.onnx")
    socket = f"unix:{folder}/s"
    running = RunningServer(
        model=(str(model),),
        scripted=SCRIPTS,
        grpc_address=f"127.0.0.1:0,{socket}",
        allow_client_shared_memory=True,
    )
    running.socket, running.model = socket, str(model)  # type: ignore[attr-defined]
    yield running
    running.stop()


Measure = Callable[..., dict[str, Any]]


@pytest.fixture
def measure(server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Measure:
    """Runs trtserve-load in this process and gives what it wrote as JSON, with its exit code."""

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        path = tmp_path / "result.json"
        found = main([*words, "--url", server.url, "--workers", "1", "--json", str(path)])
        output = capsys.readouterr()
        assert found == code, output.err
        document: dict[str, Any] = json.loads(path.read_text())
        return {**document, "output": output.out, "problems": output.err}

    return run


def only_run(document: dict[str, Any]) -> dict[str, Any]:
    (level,) = document["levels"]
    (run,) = level["runs"]
    return dict(run)


def percentile(run: dict[str, Any], percent: float) -> float:
    return float(dict(map(tuple, run["curve"]))[percent])


@pytest.mark.alone
def test_injected_latencies_come_out_as_measured_percentiles_within_two_percent(measure: Measure) -> None:
    run = only_run(measure("two", "--concurrency", "1", "--count", "8", "--warmup-s", "0"))
    assert run["answered"] == 8
    # Half take 500 ms and half 1000 ms, so that the quarters lie in the middle of either.
    assert percentile(run, 25) == pytest.approx(500, rel=0.02)
    assert percentile(run, 75) == pytest.approx(1000, rel=0.02)
    assert 750 <= run["server"]["phases_ms"]["compute_infer"] <= run["mean"]


@pytest.mark.alone
def test_a_stall_is_visible_in_an_open_loop(measure: Measure) -> None:
    document = measure("stalls", "--rate", "60", "--arrivals", "constant", "--duration-s", "2", "--warmup-s", "0")
    run = only_run(document)
    assert run["max"] > 500
    # 500 ms at 60/s hold up 30 of 120 requests, each by what is left of the stall.
    assert percentile(run, 90) > 200
    assert max(point["p99"] for point in run["timeline"]) > 500
    assert "p50 ran from" in document["output"] or "Not stable" not in document["output"]


@pytest.mark.alone
def test_the_same_stall_is_one_slow_request_in_a_closed_loop(measure: Measure) -> None:
    run = only_run(measure("stallsagain", "--concurrency", "1", "--count", "60", "--warmup-s", "0"))
    assert run["max"] > 500
    assert percentile(run, 90) < 250


@pytest.mark.alone
def test_what_the_server_did_is_told(measure: Measure) -> None:
    document = measure("batches", "--concurrency", "4", "--count", "40", "--warmup-s", "0.2")
    server = only_run(document)["server"]
    assert 1 < server["batch"] <= 4
    assert set(server["batch_sizes"]) <= {"1", "2", "3", "4"}
    assert server["phases_ms"]["compute_infer"] == pytest.approx(20, rel=0.5)
    assert server["memory_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.5)
    assert document["environment"]["server"].startswith("trtserve ")


def test_errors_are_counted_by_status_with_the_servers_words(measure: Measure) -> None:
    document = measure("fails", "--concurrency", "1", "--count", "40", "--warmup-s", "0")
    run = only_run(document)
    assert run["answered"] == 30
    assert run["errors"] == {"INTERNAL": 10}
    assert "fail_every = 4" in run["first_error"] + document["output"]
    assert "10 INTERNAL" in document["output"]


def test_a_rate_that_cannot_be_reached_is_told(measure: Measure) -> None:
    words = ("slow", "--rate", "100", "--duration-s", "1", "--warmup-s", "0", "--max-in-flight", "4")
    document = measure(*words)
    run = only_run(document)
    assert not run["reached"]
    assert run["unsent"] > 0
    assert run["throughput"] < 25
    assert "The rate was not reached" in document["output"]
    assert "were answered of 100/s" in document["output"]


def test_the_search_finds_the_rate_that_holds(measure: Measure) -> None:
    document = measure("quick", "--find-capacity", "--p99-ms", "60", "--duration-s", "0.3", "--warmup-s", "0.1")
    # One request of 5 ms at a time: 200/s is the most, and less on a machine that is busy with other things.
    assert 0 < document["capacity"] < 230
    assert f"{document['capacity']:g} requests/s is the highest rate that held p99 within 60 ms" in document["output"]
    rates = [level["offered"] for level in document["levels"]]
    assert rates == sorted(rates)
    above = [level["runs"] for level in document["levels"] if level["offered"] > document["capacity"]]
    assert above
    assert all(len(runs) == 2 for runs in above), "a rate fails by failing twice"


def test_streams(measure: Measure) -> None:
    run = only_run(measure("steady", "--streams", "2", "--in-flight", "3", "--count", "60", "--warmup-s", "0"))
    assert (run["answered"], run["errors"]) == (60, {})
    refused = only_run(measure("fails", "--streams", "1", "--in-flight", "1", "--count", "12", "--warmup-s", "0"))
    assert refused["errors"] == {"REFUSED_IN_STREAM": 3}


def test_tensors_in_shared_memory(measure: Measure) -> None:
    words = ("--shared-memory", "--concurrency", "3", "--count", "60", "--warmup-s", "0")
    for model in ("linear", "batches"):
        run = only_run(measure(model, *words))
        assert (run["answered"], run["errors"]) == (60, {})
    assert [path for path in Path("/dev/shm").iterdir() if path.name.startswith(f"trtserve-{os.getpid()}-")] == []


@pytest.mark.alone
@pytest.mark.parametrize(
    "words", [("--concurrency", "2"), ("--streams", "1", "--in-flight", "2"), ("--shared-memory",)]
)
def test_the_phases_of_every_request_by_its_answers_timing(measure: Measure, words: tuple[str, ...]) -> None:
    if words == ("--shared-memory",):
        words = (*words, "--concurrency", "2")
    document = measure("batches", *words, "--timing", "--count", "20", "--warmup-s", "0")
    run = only_run(document)
    timings = run["timings"]
    assert timings["compute"]["p50"] == pytest.approx(20, rel=0.5)
    parts = sum(each["mean"] for name, each in timings.items() if name != "batch_rows")
    assert parts == pytest.approx(run["mean"], rel=0.02)
    assert 1 <= timings["batch_rows"]["p50"] <= 4.01
    assert re.search(r"waiting for its turn +\d", document["output"])


@pytest.mark.alone
def test_a_trace_is_replayed_with_its_inputs_and_its_timing(
    measure: Measure, server: RunningServer, tmp_path: Path
) -> None:
    trace = tmp_path / "t.jsonl"
    lines = [{"at_s": number / 20, "inputs": {"x": np.zeros((1, 16)).tolist()}} for number in range(10)]
    trace.write_text("\n".join(map(json.dumps, lines)))
    document = measure("linear", "--trace", str(trace))
    run = only_run(document)
    assert run["answered"] == 10
    assert run["seconds"] == pytest.approx(0.45, abs=0.01)


def test_repeated_runs_have_a_median_and_a_spread(measure: Measure) -> None:
    document = measure("steady", "--concurrency", "1,2", "--count", "10", "--warmup-s", "0", "--repeats", "3")
    assert [len(level["runs"]) for level in document["levels"]] == [3, 3]
    summary = document["levels"][0]["summary"]["p50"]
    assert summary["low"] <= summary["median"] <= summary["high"]
    assert re.search(r"1 at once +[\d,]+ \([\d,]+ to [\d,]+\)", document["output"])


def test_the_price_of_the_protocol(measure: Measure, server: RunningServer) -> None:
    kinds = ("--compare", "grpc,in-process,uds,stream,shm", "--uds-url", server.socket, "--model-file", server.model)  # type: ignore[attr-defined]
    document = measure(
        "linear", *kinds, "--concurrency", "2", "--repeats", "2", "--duration-s", "0.3", "--warmup-s", "0.1"
    )
    assert [level["target"] for level in document["levels"]] == ["in-process", "grpc", "uds", "stream", "shm"]
    ratios = {ratio["target"]: ratio["median"] for ratio in document["ratios"] if ratio["metric"] == "throughput"}
    assert ratios["in-process"] == 1
    assert all(0 < ratios[name] < 1 for name in ("grpc", "uds", "stream", "shm"))


def test_servers_side_by_side(server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'[load]\nurl = "{server.url}"\nmodel = "steady"\nconcurrency = 2\ncount = 20\nwarmup_s = 0.0\nrepeats = 3\n'
        '[[target]]\nname = "fast"\n[[target]]\nname = "slow"\nmodel = "slow"\n'
    )
    report = tmp_path / "report.html"
    assert main(["compare", str(plan), "--report", str(report)]) == 0
    assert re.search(r"slow +0\.\d+ \(0\.\d+ to 0\.\d+\)", capsys.readouterr().out)
    assert "Side by side, in ratio to fast" in report.read_text()


@pytest.mark.alone
def test_a_condition_against_an_earlier_result_decides_the_exit_code(measure: Measure, tmp_path: Path) -> None:
    words = ("--concurrency", "1", "--count", "10", "--warmup-s", "0")
    measure("steady", *words)
    earlier = tmp_path / "earlier.json"
    (tmp_path / "result.json").rename(earlier)
    baseline = (*words, "--baseline", str(earlier), "--fail-if")
    measure("steady", *baseline, "p50 > 1000 * baseline.p50")
    found = measure("slow", *baseline, "p50 > 1.2 * baseline.p50", code=4)
    assert "--fail-if: 1 at once: p50 > 1.2 * baseline.p50 holds" in found["problems"]


def test_no_answer_at_all_is_the_servers_no(measure: Measure) -> None:
    assert main(["dead", "--count", "5"]) != 0
    del measure


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nope"], 1, "model 'nope' is unknown"),
        (["steady", "--data", "{wrong}"], 2, "shape [1, 4] given, [1, 16] wanted"),
        (["steady", "--rows", "3"], 2, "--rows 3"),
        (["batches", "--rows", "9"], 2, "1 to 4 wanted"),
        (["dead"], 1, "the first request failed"),
        (["steady", "--json", "/dev/full", "--count", "3", "--warmup-s", "0"], 5, "No space left on device"),
    ],
)
def test_bad_input_is_told_with_its_exit_code(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((1, 4), np.float32))
    given = [word.replace("{wrong}", str(tmp_path / "wrong.npy")) for word in words]
    assert main([*given, "--url", server.url, "--concurrency", "1", "--workers", "1"]) == code
    assert message in capsys.readouterr().err


def test_nothing_there_has_its_own_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["m", "--url", f"unix:{tmp_path}/nobody"]) == 3
    assert "is the server running there?" in capsys.readouterr().err


class Harness:
    """trtserve-load in a process of its own, under way."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "trtserve_client.load.cli", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.workers: list[psutil.Process] = []

    def under_way(self, server: RunningServer, model: str) -> None:
        """Waits until the model has answered more than the harness's first question."""
        statistics = server.app.registry.find(model).statistics
        before = statistics.executions
        server.wait_until(lambda: statistics.executions > before + 20, WAIT_S)
        self.workers = psutil.Process(self.process.pid).children(recursive=True)
        assert self.workers

    def end(self) -> tuple[int, str, str]:
        """Exit code and output; no worker is left."""
        output, problems = self.process.communicate(timeout=WAIT_S)
        _, left = psutil.wait_procs(self.workers, timeout=WAIT_S)
        assert left == []
        return self.process.returncode, output, problems


LONG = ("steady", "--concurrency", "2", "--duration-s", "600", "--warmup-s", "0", "--workers", "2")


def test_an_interrupt_prints_what_was_measured_so_far(server: RunningServer) -> None:
    harness = Harness(*LONG, "--url", server.url)
    harness.under_way(server, "steady")
    harness.process.send_signal(signal.SIGINT)
    code, output, _ = harness.end()
    assert code == 130
    assert "Interrupted: what was measured until then." in output
    assert re.search(r"2 at once +[1-9]", output)


def test_a_server_that_is_killed_under_load_is_counted_as_errors(tmp_path: Path) -> None:
    server = ServerProcess("--scripted", "m:latency_ms=2")
    path = tmp_path / "result.json"
    try:
        words = (
            "m",
            "--concurrency",
            "2",
            "--duration-s",
            "3",
            "--warmup-s",
            "0",
            "--workers",
            "1",
            "--json",
            str(path),
        )
        harness = Harness(*words, "--url", server.url)
        with Client(server.url) as client:
            while not client.model_statistics("m")[0].inference_count > 20:
                pass
        server.signal(signal.SIGKILL)
        code, output, _ = harness.end()
    finally:
        server.close()
    run = only_run(json.loads(path.read_text()))
    assert code == 0
    assert run["answered"] > 0
    assert set(run["errors"]) == {"UNAVAILABLE"}
    assert run["server"]["cpu_share"] >= 0
    assert "UNAVAILABLE" in output


def test_a_killed_worker_ends_the_measurement_with_its_reason(server: RunningServer) -> None:
    harness = Harness(*LONG, "--url", server.url)
    harness.under_way(server, "steady")
    harness.workers[0].kill()
    code, _, problems = harness.end()
    assert code == 5
    assert "was killed by SIGKILL" in problems


def test_workers_end_with_a_harness_that_is_killed(server: RunningServer) -> None:
    harness = Harness(*LONG, "--url", server.url)
    harness.under_way(server, "steady")
    os.kill(harness.process.pid, signal.SIGKILL)
    assert harness.end()[0] == -signal.SIGKILL
