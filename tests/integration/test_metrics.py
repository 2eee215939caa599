"""GET /metrics: Triton's names exactly, histograms that add up, nothing else on that port."""

from __future__ import annotations

import http.client
import re
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_server.http_server import LIVE, METRICS, READY

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]
Script = Callable[..., Any]

X = np.ones((1, 4), np.float32)

COUNTERS = {
    "nv_cache_hit_duration_per_model",
    "nv_cache_miss_duration_per_model",
    "nv_cache_num_hits_per_model",
    "nv_cache_num_misses_per_model",
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
    "trtserve_nan_searched_batches_total",
    "trtserve_nan_batches_total",
    "trtserve_loop_stalls_total",
}
GAUGES = {"nv_inference_pending_request_count", "nv_model_load_duration_secs"}
HISTOGRAMS = {
    "trtserve_queue_seconds",
    "trtserve_compute_seconds",
    "trtserve_request_seconds",
    "trtserve_batch_rows",
}


def get(server: RunningServer, path: str = "/metrics", method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.app.http_port, timeout=20)
    connection.request(method, path)
    response = connection.getresponse()
    response.text = response.read().decode()  # type: ignore[attr-defined]
    connection.close()
    return response


def samples(server: RunningServer) -> dict[str, float]:
    """Every sample by its name and labels, as it is written."""
    lines = [line for line in get(server).text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.fixture
def server(serve: Serve, connect: Connect, tmp_path: Path) -> RunningServer:
    """A server that has answered 3 requests of 1, 2 and 3 rows and failed on 1."""
    files = {"double": make_models.scale(2.0), "gather": make_models.gather()}
    running = serve(model=tuple(str(make_models.save(each, tmp_path / f"{name}.onnx")) for name, each in files.items()))
    client = connect(running)
    for rows in (1, 2, 3):
        client.infer(infer_request("double", {"x": np.ones((rows, 4), np.float32)}))
    client.error("ModelInfer", infer_request("gather", {"index": np.array([9])}))
    return running


def test_the_names_are_exactly_tritons_and_ours(server: RunningServer) -> None:
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", get(server).text, re.MULTILINE))
    ours = {name: kind for name, kind in kinds.items() if name.startswith(("nv_", "trtserve_"))}
    assert {name for name, kind in ours.items() if kind == "counter"} == COUNTERS
    assert {name for name, kind in ours.items() if kind == "gauge"} == {*GAUGES, "trtserve_engine_build_progress"}
    assert {name for name, kind in ours.items() if kind == "histogram"} == HISTOGRAMS | {"trtserve_loop_lag_seconds"}
    used = {name.partition("{")[0] for name in samples(server) if name.startswith("nv_")}
    assert used == {name for name in COUNTERS | GAUGES if name.startswith("nv_")}


def test_every_name_has_its_help(server: RunningServer) -> None:
    helped = set(re.findall(r"^# HELP (\S+) \S", get(server).text, re.MULTILINE))
    assert helped >= COUNTERS | GAUGES | HISTOGRAMS


def test_prometheus_itself_can_read_them(server: RunningServer) -> None:
    response = get(server)
    assert response.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    labels = [sample.labels for sample in families["nv_inference_count"].samples]
    assert {"model": "double", "version": "1"} in labels


def test_counters_count_requests_rows_batches_and_failures(server: RunningServer) -> None:
    values = samples(server)
    assert values['nv_inference_request_success{model="double",version="1"}'] == 3
    assert values['nv_inference_count{model="double",version="1"}'] == 6
    assert values['nv_inference_exec_count{model="double",version="1"}'] == 3
    assert values['nv_inference_request_duration_us{model="double",version="1"}'] > 0
    assert values['nv_inference_request_success{model="gather",version="1"}'] == 0
    assert values['nv_inference_request_failure{model="gather",reason="BACKEND",version="1"}'] == 1
    assert values['nv_inference_pending_request_count{model="double",version="1"}'] == 0
    assert values['nv_model_load_duration_secs{model="double",version="1"}'] > 0


@pytest.mark.parametrize("name", sorted(HISTOGRAMS))
def test_histograms_add_up(server: RunningServer, name: str) -> None:
    text = get(server).text
    pattern = rf'^{name}_bucket{{le="([^"]+)",model="double",version="1"}} (\S+)$'
    buckets = [(float(bound), float(count)) for bound, count in re.findall(pattern, text, re.MULTILINE)]
    values = samples(server)
    count, total = (values[f'{name}_{part}{{model="double",version="1"}}'] for part in ("count", "sum"))
    assert [bound for bound, _ in buckets] == sorted({bound for bound, _ in buckets})
    assert [number for _, number in buckets] == sorted(number for _, number in buckets)
    assert buckets[-1] == (float("inf"), 3)
    assert count == 3
    bounds = [0.0, *(bound for bound, _ in buckets)]
    each = [number - before for (_, number), before in zip(buckets, [0, *(n for _, n in buckets)], strict=False)]
    lowest = sum(low * times for low, times in zip(bounds, each, strict=False))
    highest = sum(high * times for (high, _), times in zip(buckets, each, strict=True) if times)
    assert lowest <= total <= highest


def test_the_rows_of_batches_are_counted_exactly(server: RunningServer) -> None:
    values = samples(server)
    buckets = {
        bound: values[f'trtserve_batch_rows_bucket{{le="{bound}",model="double",version="1"}}'] for bound in (1, 2, 4)
    }
    assert buckets == {1: 1, 2: 2, 4: 3}
    assert values['trtserve_batch_rows_sum{model="double",version="1"}'] == 6


def test_what_a_request_took_is_at_least_what_its_phases_took(server: RunningServer) -> None:
    values = samples(server)
    phases = ("queue", "compute_input", "compute_infer", "compute_output")
    parts = [values[f'nv_inference_{phase}_duration_us{{model="double",version="1"}}'] for phase in phases]
    assert sum(parts) <= values['nv_inference_request_duration_us{model="double",version="1"}'] + len(parts)


def test_waiting_refused_and_cancelled_requests_show(script: Script) -> None:
    m = script(proto=make_models.scale(1.0))
    m.gate.shut()
    futures = [m.client.future(infer_request("m", {"x": X}))]
    m.gate.batch()
    futures += [m.client.future(infer_request("m", {"x": X})) for _ in range(2)]
    m.wait_for_queue(2)
    assert samples(m.server)['nv_inference_pending_request_count{model="m",version="1"}'] == 2
    late = infer_request("m", {"x": X}, parameters={"timeout": 1})
    m.client.error("ModelInfer", late)
    futures[2].cancel()
    m.wait_for_failures(2)
    values = samples(m.server)
    assert values['nv_inference_request_failure{model="m",reason="REJECTED",version="1"}'] == 1
    assert values['nv_inference_request_failure{model="m",reason="CANCELED",version="1"}'] == 1
    assert values['nv_inference_pending_request_count{model="m",version="1"}'] == 1
    m.gate.open()
    for future in futures[:2]:
        future.result()


def test_a_model_of_any_name_has_its_metrics(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    name = 'a "quoted" \\ grün'
    running = serve(model=(str(make_models.save(make_models.scale(2.0), tmp_path / f"{name}.onnx")),))
    connect(running).infer(infer_request(name, {"x": X}))
    families = {family.name: family for family in text_string_to_metric_families(get(running).text)}
    assert [sample.labels["model"] for sample in families["nv_inference_count"].samples] == [name]


def test_a_model_that_does_not_serve_has_no_metrics_and_breaks_none(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"")
    running = serve(model=(str(tmp_path / "broken.onnx"),))
    assert get(running).status == 200
    assert "broken" not in get(running).text


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/metricss", "/v2/health", "/v2/models/m/infer"])
def test_there_is_nothing_else(server: RunningServer, path: str) -> None:
    response = get(server, path)
    assert response.status == 404
    for word in (METRICS, LIVE, READY, "inference is gRPC"):
        assert word in response.text


def test_a_query_is_ignored(server: RunningServer) -> None:
    assert get(server, "/metrics?name[]=nv_inference_count").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_sent_there(server: RunningServer, method: str) -> None:
    assert get(server, "/metrics", method).status == 501


def test_no_address_means_no_metrics(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    running = serve(model_repository=(str(tmp_path),), http_address="")
    assert running.app.http_port == 0
    assert connect(running).call("ServerLive").live


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_both_addresses_may_be_ipv6(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    running = serve(model_repository=(str(tmp_path),), grpc_address="[::1]:0", http_address="[::1]:0")
    assert connect(f"[::1]:{running.app.grpc_port}").call("ServerLive").live
    connection = http.client.HTTPConnection("::1", running.app.http_port, timeout=20)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Python changes threads as often as it can, so that what must not come between comes between."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_scrapes_and_batches_of_new_sizes_do_not_disturb_each_other(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    # Each size is a new entry in what a scrape reads on a thread of its own.
    file = make_models.save(make_models.identity(), tmp_path / "any.onnx")
    running = serve(model=(str(file),), default_max_batch_size=2000)
    sizes = range(1, 1000)
    stream = connect(running).stream(infer_request("any", {"x": np.zeros((n, 1), np.float32)}) for n in sizes)
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(lambda: sum(1 for _ in stream))
        statuses = {get(running).status}
        while not answers.done():
            statuses.add(get(running).status)
    assert (answers.result(), statuses) == (len(sizes), {200})
