"""Both clients and trtserve-client control a real server: models, traces, logs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import make_models
from tests.support.running_server import RunningServer
from trtserve_client import Client, FailedPrecondition, InvalidRequest, NotFound, Unavailable, aio, cli
from trtserve_server.config import TraceConfig

X = np.ones((1, 4), np.float32)
SCALE = make_models.scale(3.0).SerializeToString()


@pytest.fixture
def server(serve: Any, tmp_path: Path) -> RunningServer:
    """In explicit mode, with "k" in its repository and an ensemble "e" of it, neither loaded, and a trace file."""
    repository = tmp_path / "repository"
    make_models.save(make_models.scale(2.0), repository / "k" / "1" / "model.onnx")
    (repository / "e").mkdir()
    (repository / "e" / "model.toml").write_text(
        "[[ensemble]]\nmodel = 'k'\ninputs = { x = 'in' }\noutputs = { y = 'out' }"
    )
    options = {"model_repository": (str(repository),), "model_control_mode": "explicit"}
    return serve(**options, trace=TraceConfig(file=str(tmp_path / "trace.json")))  # type: ignore[no-any-return]


def test_models_are_loaded_and_unloaded(server: RunningServer) -> None:
    with Client(server.url) as client:
        with pytest.raises(NotFound, match="did you mean 'k'"):
            client.load_model("kk")
        client.load_model("e")
        assert client.infer("e", {"in": X})["out"][0, 0] == 2
        client.load_model("k", config={"max_batch_size": 3}, files={"1/model.onnx": SCALE})
        assert (client.infer("e", {"in": X})["out"][0, 0], client.model_config("k").max_batch_size) == (3, 3)
        client.load_model("k", config=client.model_config("k"))
        assert (client.infer("k", {"x": X})["y"][0, 0], client.model_config("k").max_batch_size) == (2, 3)
        with pytest.raises(FailedPrecondition, match="not an ONNX model"):
            client.load_model("k", config="{}", files={"1/model.onnx": b"no model"})
        client.unload_model("e", unload_dependents=True)
        assert {model.state for model in client.repository_index()} == {"UNAVAILABLE"}
        with pytest.raises(Unavailable, match="unloaded"):
            client.infer("k", {"x": X})


def test_the_asynchronous_client_does_the_same(server: RunningServer) -> None:
    async def main() -> None:
        async with aio.Client(server.url) as client:
            await client.load_model("k", config="{}", files={"4/model.onnx": SCALE})
            result = await client.infer("k", {"x": X})
            assert (result["y"][0, 0], result.model_version) == (3, "4")
            assert (await client.log_settings({"log_verbose_level": 1}))["log_verbose_level"] == 1
            assert (await client.log_settings({"log_verbose_level": None}))["log_verbose_level"] == 0
            changes = {"trace_level": ["TIMESTAMPS"], "trace_rate": 1}
            assert (await client.trace_settings(changes, model="k"))["trace_rate"] == ["1"]
            assert (await client.trace_settings())["trace_level"] == ["OFF"]
            await client.unload_model("k")

    asyncio.run(main())


def test_settings_are_read_changed_and_refused(server: RunningServer, tmp_path: Path) -> None:
    with Client(server.url) as client:
        client.load_model("k")
        before = client.trace_settings()
        assert before["trace_level"] == ["OFF"] and before["trace_file"] == [str(tmp_path / "trace.json")]
        client.trace_settings({"trace_level": ["TIMESTAMPS"], "trace_rate": 1})
        client.infer("k", {"x": X}, id="traced")
        assert client.trace_settings({"trace_level": None, "trace_rate": None}) == before
        with pytest.raises(InvalidRequest, match="trace_rate"):
            client.trace_settings({"trace_rate": "x"})
        with pytest.raises(InvalidRequest, match="log_format"):
            client.log_settings({"log_format": "x"})
        assert client.log_settings()["log_format"] == "default"
    server.stop()
    assert [each["request_id"] for each in json.loads((tmp_path / "trace.json").read_text()) if "request_id" in each]


def test_commands(server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, Any]:
        code = cli.main(["--url", server.url, "--json", *words])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if code == 0 else captured.err

    file = tmp_path / "new.onnx"
    file.write_bytes(SCALE)
    ready = [{"name": "k", "version": "1", "state": "READY", "reason": ""}]
    assert run("load", "k", "--config", '{"maxBatchSize": 3}', "--file", f"1/model.onnx={file}") == (0, ready)
    assert run("index", "--ready") == (0, ready)
    assert run("infer", "k", "--input", "x=[[1,1,1,1]]")[1]["outputs"][0]["data"] == [[3.0] * 4]
    assert run("trace", "trace_level=TIMESTAMPS,TENSORS", "trace_rate=5")[1]["trace_level"] == ["TIMESTAMPS", "TENSORS"]
    assert run("trace", "trace_level=")[1]["trace_level"] == ["OFF"]
    assert run("log", "log_verbose_level=1")[1]["log_verbose_level"] == 1
    assert run("log", "log_verbose_level=")[1]["log_verbose_level"] == 0
    unloaded = [{**ready[0], "state": "UNAVAILABLE", "reason": "unloaded"}]
    assert run("unload", "k") == (0, unloaded)
    code, error = run("load", "nobody")
    assert (code, "NOT_FOUND" in error, error.count("\n")) == (1, True, 1)
