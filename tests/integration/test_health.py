"""grpc.health.v1 and readiness: what serves, what does not, and every change between."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.gate import GatedEngines
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_protos import health, oip, row_inference
from trtserve_server.http_server import LIVE, READY
from trtserve_server.models import loader

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]

SERVING = health.HealthCheckResponse(status="SERVING")
NOT_SERVING = health.HealthCheckResponse(status="NOT_SERVING")
X = np.ones((1, 4), np.float32)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A model that serves and one that does not."""
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    good = make_models.save(make_models.scale(2.0), tmp_path / "good.onnx")
    return {"good": str(good), "broken": str(tmp_path / "broken.onnx")}


def in_background(call: Callable[[], Any]) -> Future:
    """Runs `call` on a thread of its own."""
    future: Future = Future()
    Thread(target=lambda: future.set_result(call())).start()
    return future


@pytest.mark.parametrize("service", ["", oip.SERVICE, row_inference.SERVICE, health.SERVICE, "good"])
def test_check_gives_serving_for_the_server_its_services_and_its_models(
    serve: Serve, connect: Connect, files: dict[str, str], service: str
) -> None:
    assert connect(serve(model=(files["good"],))).call("Check", service=service) == SERVING


@pytest.mark.parametrize("service", ["nobody", "Good", "inference.GRPCInferenceServic"])
def test_check_of_an_unknown_service_is_not_found(
    serve: Serve, connect: Connect, files: dict[str, str], service: str
) -> None:
    error = connect(serve(model=(files["good"],))).error("Check", service=service)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert repr(service) in error.details()


def test_list_gives_what_check_gives(serve: Serve, connect: Connect, files: dict[str, str]) -> None:
    client = connect(serve(model=(files["good"], files["broken"])))
    statuses = client.call("List").statuses
    assert set(statuses) == {"", oip.SERVICE, row_inference.SERVICE, health.SERVICE, "good", "broken"}
    assert all(client.call("Check", service=service) == status for service, status in statuses.items())


def test_list_gives_at_most_100_and_the_server_first(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    for number in range(120):
        (tmp_path / f"model{number}").mkdir()
    statuses = connect(serve(model_repository=(str(tmp_path),))).call("List").statuses
    assert len(statuses) == 100
    assert {"", oip.SERVICE, health.SERVICE} < set(statuses)


def test_a_broken_model_does_not_serve_while_the_server_does(
    serve: Serve, connect: Connect, files: dict[str, str]
) -> None:
    client = connect(serve(model=(files["good"], files["broken"])))
    assert client.call("Check", service="broken") == NOT_SERVING
    assert not client.call("ModelReady", name="broken").ready
    assert client.call("Check", service="good") == SERVING
    assert client.call("Check") == SERVING
    assert client.call("ServerReady").ready


def test_a_broken_model_makes_a_strict_server_not_ready(serve: Serve, connect: Connect, files: dict[str, str]) -> None:
    client = connect(serve(model=(files["good"], files["broken"]), strict_readiness=True))
    assert client.call("Check") == client.call("Check", service=oip.SERVICE) == NOT_SERVING
    assert not client.call("ServerReady").ready
    assert client.call("ServerLive").live
    assert client.call("Check", service="good") == SERVING
    np.testing.assert_array_equal(client.infer(infer_request("good", {"x": X}))["y"], 2 * X)


def test_a_server_none_of_whose_models_serves_is_live_but_not_ready(
    serve: Serve, connect: Connect, files: dict[str, str]
) -> None:
    client = connect(serve(model=(files["broken"],)))
    assert client.call("Check") == NOT_SERVING
    assert not client.call("ServerReady").ready
    assert client.call("ServerLive").live


def test_a_server_without_models_is_live_but_not_ready(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    client = connect(serve(model_repository=(str(tmp_path),)))
    assert client.call("ServerLive").live
    assert not client.call("ServerReady").ready
    assert client.call("Check") == NOT_SERVING
    assert client.error("ModelMetadata", name="any").details() == "model 'any' is unknown; this server serves no models"


def test_a_model_serves_while_one_of_its_versions_does(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    make_models.save(make_models.scale(2.0), folder / "1" / "model.onnx")
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_bytes(b"not a model")
    (folder / "model.toml").write_text('versions = "all"')
    client = connect(serve(model_repository=(str(tmp_path),)))
    assert client.call("Check", service="model") == SERVING
    assert client.call("ModelReady", name="model").ready
    assert not client.call("ModelReady", name="model", version="2").ready


def test_a_watcher_sees_serving_then_not_serving_then_the_end(
    serve: Serve, connect: Connect, files: dict[str, str]
) -> None:
    server = serve(model=(files["good"],))
    client = connect(server)
    watchers = {service: client.watch(service) for service in ("", oip.SERVICE, "good")}
    assert {next(watcher) for watcher in watchers.values()} == {"SERVING"}
    server.stop()
    assert {service: list(watcher) for service, watcher in watchers.items()} == {
        service: ["NOT_SERVING"] for service in watchers
    }


def test_a_watcher_of_an_unknown_service_is_told_so_and_waits(
    serve: Serve, connect: Connect, files: dict[str, str]
) -> None:
    server = serve(model=(files["good"],))
    watcher = connect(server).watch("nobody")
    assert next(watcher) == "SERVICE_UNKNOWN"
    rest = in_background(lambda: list(watcher))
    server.stop()
    assert rest.result(timeout=20) == []


def test_a_watcher_that_goes_leaves_the_others(serve: Serve, connect: Connect, files: dict[str, str]) -> None:
    server = serve(model=(files["good"],))
    gone, stays = connect(server), connect(server)
    leaving, staying = gone.watch(""), stays.watch("")
    assert (next(leaving), next(staying)) == ("SERVING", "SERVING")
    gone.close()
    server.stop()
    assert list(staying) == ["NOT_SERVING"]


def test_a_server_listens_before_its_models_are_loaded_and_serves_after(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_models.save(make_models.scale(2.0), tmp_path / "m.onnx")
    engines = GatedEngines(lambda inputs: {"y": 2 * inputs["x"]})
    monkeypatch.setattr(loader, "open_engine", engines)
    engines.gate.shut()
    server = RunningServer(loaded=False, model=(str(file),), inline_run_limit_us=0)
    try:
        engines.gate.batch()  # of the test whether the model can be batched
        client = connect(server)
        watchers = {service: client.watch(service) for service in ("", oip.SERVICE, "m")}
        assert {next(watcher) for watcher in watchers.values()} == {"NOT_SERVING"}
        assert client.call("ServerLive").live
        assert not client.call("ServerReady").ready
        assert (server.http_status(LIVE), server.http_status(READY)) == (200, 400)
        assert not client.call("ModelReady", name="m").ready
        assert client.states() == {"m": ("LOADING", "")}
        assert not client.call("RepositoryIndex", ready=True).models
        for name, message in (("ModelInfer", infer_request("m", {"x": X})), ("ModelMetadata", None)):
            error = client.error(name, message) if message else client.error(name, name="m")
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "'m' version 1 is loading; send again later" in error.details()
        engines.gate.open()
        assert {next(watcher) for watcher in watchers.values()} == {"SERVING"}
        assert (server.http_status(LIVE), server.http_status(READY)) == (200, 200)
        np.testing.assert_array_equal(client.infer(infer_request("m", {"x": X}))["y"], 2 * X)
    finally:
        engines.gate.open()
        server.stop()
