"""The response cache through a real server: hits without a run, bypass, metrics, and which models have it."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from tests.support.shared_object import SharedObject
from trtserve_protos import oip, row_inference

ONES = np.ones((1, 4), np.float32)


@pytest.fixture
def server(serve: Any, tmp_path: Path) -> RunningServer:
    for name, config in (("kept", "response_cache { enable: true }"), ("asked", "")):
        make_models.save(make_models.scale(2.0), tmp_path / name / "1" / "model.onnx")
        (tmp_path / name / "config.pbtxt").write_text(config)
    return serve(model_repository=(str(tmp_path),), allow_client_shared_memory=True)  # type: ignore[no-any-return]


@pytest.fixture
def client(server: RunningServer, connect: Any) -> Client:
    return connect(server)  # type: ignore[no-any-return]


def hits(client: Client, model: str = "kept") -> tuple[int, int, int]:
    """Hits, misses and runs."""
    statistics = client.statistics(model)
    stats = statistics.inference_stats
    return stats.cache_hit.count, stats.cache_miss.count, statistics.execution_count


def test_a_repeated_request_is_answered_without_a_run(client: Client) -> None:
    for number in range(3):
        response = client.call("ModelInfer", infer_request("kept", {"x": ONES}, id=str(number)))
        assert response.id == str(number)
        np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[0], np.float32), [2] * 4)
    assert hits(client) == (2, 1, 1)
    np.testing.assert_array_equal(client.infer(infer_request("kept", {"x": ONES}, raw=False))["y"], 2 * ONES)
    assert hits(client) == (3, 1, 1)
    np.testing.assert_array_equal(client.infer(infer_request("kept", {"x": ONES * 3}))["y"], 6 * ONES)
    assert hits(client) == (3, 2, 2)
    statistics = client.statistics("kept")
    assert (statistics.inference_stats.success.count, statistics.inference_count) == (5, 2)
    assert statistics.inference_stats.cache_hit.ns > 0 < statistics.inference_stats.cache_miss.ns


def test_a_stream_is_answered_from_the_cache_too(client: Client) -> None:
    client.infer(infer_request("kept", {"x": ONES}))
    answers = list(client.stream([infer_request("kept", {"x": ONES}, id=str(number)) for number in range(5)]))
    assert sorted(answer.infer_response.id for answer in answers) == list("01234")
    assert hits(client) == (5, 1, 1)


@pytest.mark.parametrize("value", [False, "false"])
def test_a_request_can_go_past_the_cache(client: Client, value: bool | str) -> None:
    for _ in range(2):
        client.infer(infer_request("kept", {"x": ONES}, parameters={"trtserve_cache": value}))
    assert hits(client) == (0, 0, 2)
    error = client.error("ModelInfer", infer_request("kept", {"x": ONES}, parameters={"trtserve_cache": "maybe"}))
    assert "'trtserve_cache' is 'maybe'; wanted is true or false" in error.details()


def test_a_call_can_go_past_the_cache_with_all_its_requests(client: Client) -> None:
    metadata = [("trtserve-cache", "false")]
    message = infer_request("kept", {"x": ONES})
    method = oip.METHODS["ModelInfer"]
    infer = client.channel.unary_unary(
        method.path, lambda each: each.SerializeToString(), method.response_class.FromString
    )
    infer(message, metadata=metadata, timeout=20)
    assert len(list(client.stream([message, message], metadata=metadata))) == 2
    rows = row_inference.METHODS["InferRows"]
    infer_rows = client.channel.unary_stream(
        rows.path, lambda each: each.SerializeToString(), rows.response_class.FromString
    )
    assert len(list(infer_rows(rows.request_class(batch=message), metadata=metadata, timeout=20))) == 1
    assert hits(client)[:2] == (0, 0)
    for _ in range(2):
        client.infer(message)
    assert hits(client)[:2] == (1, 1)


def test_models_that_do_not_ask_for_it_have_no_cache(client: Client) -> None:
    for _ in range(2):
        client.infer(infer_request("asked", {"x": ONES}))
    assert hits(client, "asked") == (0, 0, 2)
    assert client.call("ModelConfig", name="kept").config.response_cache.enable
    assert not client.call("ModelConfig", name="asked").config.response_cache.enable


def test_what_lies_in_shared_memory_is_digested_as_it_is_now(client: Client) -> None:
    shared = SharedObject(16)
    try:
        client.call("SystemSharedMemoryRegister", name="r", key=shared.key, byte_size=16)
        message = infer_request("kept", {"x": ONES})
        del message.raw_input_contents[:]
        message.inputs[0].parameters["shared_memory_region"].string_param = "r"
        message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 16
        for value in (1, 2, 1):
            shared.put(ONES * value)
            np.testing.assert_array_equal(client.infer(message)["y"], 2 * value * ONES)
        assert hits(client) == (1, 2, 2)
        shared.truncate(4)
        assert "has shrunk" in client.error("ModelInfer", message).details()
    finally:
        shared.close()


def test_the_metrics_count_hits_and_misses(server: RunningServer, client: Client) -> None:
    for _ in range(3):
        client.infer(infer_request("kept", {"x": ONES}))
    text = urllib.request.urlopen(server.metrics_url, timeout=30).read().decode()
    labels = '{model="kept",version="1"}'
    assert f"nv_cache_num_hits_per_model{labels} 2.0" in text
    assert f"nv_cache_num_misses_per_model{labels} 1.0" in text
    assert f"nv_cache_hit_duration_per_model{labels}" in text and f"nv_cache_miss_duration_per_model{labels}" in text
    assert f"nv_inference_request_success{labels} 3.0" in text
    assert f"nv_inference_exec_count{labels} 1.0" in text


def test_a_cache_of_no_bytes_is_no_cache_and_the_log_says_so(
    serve: Any, connect: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_models.save(make_models.scale(2.0), tmp_path / "kept" / "1" / "model.onnx")
    (tmp_path / "kept" / "model.toml").write_text("response_cache = true")
    client = connect(serve(model_repository=(str(tmp_path),), response_cache_bytes=0))
    for _ in range(2):
        client.infer(infer_request("kept", {"x": ONES}))
    assert hits(client) == (0, 0, 2)
    assert "response_cache = true has no effect" in caplog.text
