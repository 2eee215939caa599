"""Warm-up requests from a model's configuration: what is run, and what is refused before anything is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.models import make_models
from tests.support.oip_client import Client
from tests.support.running_server import RunningServer
from trtserve_engines.engine import Arrays, Engine
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_server.models import loader

Connect = Callable[..., Client]
Serve = Callable[..., RunningServer]


class Warmed:
    """A model "m" whose engine keeps what it is given to run."""

    def __init__(self, folder: Path, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._serve = serve
        self._connect = connect
        self._monkeypatch = monkeypatch
        self.runs: list[Arrays] = []

    def start(self, config: str, proto: onnx.ModelProto | None = None) -> tuple[str, str]:
        """State and reason of the model with this config.pbtxt."""
        make_models.save(proto or make_models.scale(2.0), self.folder / "m" / "1" / "model.onnx")
        # No thread of the loader is to time the model with runs of its own: neither for batches nor for where they run.
        batching = "dynamic_batching { max_queue_delay_microseconds: 1 }"
        (self.folder / "m" / "config.pbtxt").write_text(f"max_batch_size: 4 {batching} {config}")
        self._monkeypatch.setattr(loader, "open_engine", self._open)
        server = self._serve(model_repository=(str(self.folder),), inline_run_limit_us=0)
        return self._connect(server).states()["m"]

    def data(self, name: str, data: bytes) -> None:
        """A file of warm-up data."""
        (self.folder / "m" / "warmup").mkdir(parents=True, exist_ok=True)
        (self.folder / "m" / "warmup" / name).write_bytes(data)

    def _open(self, model: Any, **_: Any) -> Engine:
        def compute(inputs: Arrays) -> dict[str, np.ndarray]:
            self.runs.append({name: array.copy() for name, array in inputs.items()})
            return {"y": inputs["x"].copy()}

        return ScriptedEngine(model.signature, compute)


@pytest.fixture
def warmed(tmp_path: Path, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Warmed:
    return Warmed(tmp_path, serve, connect, monkeypatch)


ROW = np.array([1, 2, 3, 4], np.float32)


def request(data: str, *, dims: str = "4", kind: str = "TYPE_FP32", name: str = "x", more: str = "") -> str:
    tensor = f"data_type: {kind} dims: [{dims}] {data}"
    return f'model_warmup {{ name: "w" {more} inputs {{ key: "{name}" value {{ {tensor} }} }} }}'


def test_requests_are_run_with_their_rows_and_as_often_as_they_say(warmed: Warmed) -> None:
    warmed.data("x.bin", np.stack([ROW, 2 * ROW]).tobytes())
    file = request('input_data_file: "x.bin"', more="batch_size: 2 count: 3")
    assert warmed.start(file + request("zero_data: true")) == ("READY", "")
    np.testing.assert_array_equal([run["x"] for run in warmed.runs[:3]], [np.stack([ROW, 2 * ROW])] * 3)
    np.testing.assert_array_equal(warmed.runs[3]["x"], np.zeros((1, 4)))
    assert len(warmed.runs) == 4  # and none with made-up inputs, which nobody asked for


def test_random_data_and_made_up_inputs_fit_the_model(warmed: Warmed) -> None:
    assert warmed.start(request("random_data: true", more="batch_size: 3") + "model_warmup { count: 1 }")[0] == "READY"
    assert sorted(run["x"].shape for run in warmed.runs) == [(1, 4), (3, 4), (4, 4)]


def test_strings_are_empty_or_read_from_a_file(warmed: Warmed) -> None:
    warmed.data("words", b"".join(struct.pack("<I", len(word)) + word for word in (b"a", b"bc")))
    text = request('input_data_file: "words"', dims="2", kind="TYPE_STRING")
    zero = request("zero_data: true", dims="2", kind="TYPE_STRING")
    model = make_models.identity(TensorProto.STRING, ("batch", 2))
    assert warmed.start(text + zero, model) == ("READY", "")
    assert [run["x"].tolist() for run in warmed.runs] == [[[b"a", b"bc"]], [[b"", b""]]]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (request("zero_data: true", dims="5"), ["'w'", "[1, 5] given", "[-1, 4] wanted"]),
        (request("zero_data: true", kind="TYPE_INT32"), ["INT32 given", "FP32 wanted"]),
        (request("zero_data: true", name="z"), ["no input 'z'"]),
        (request("zero_data: true", dims="-1"), ["[-1]", "without -1"]),
        (request("zero_data: true", more="batch_size: 5"), ["batch_size = 5", "max_batch_size = 4"]),
        (request('input_data_file: "none"'), ["warmup/none cannot be read"]),
        (request('input_data_file: "short"'), ["'w'", "3 bytes"]),
        (request(""), ["'x' has no data"]),
        (request("zero_data: true", dims="9000000000000"), ["[1, 9000000000000]", "larger than any request"]),
        (request("zero_data: true", more="count: 4000000000"), ["4000000000 runs", "at most 1000"]),
        (request("zero_data: true", more="count: 501") * 2, ["1002 runs together", "at most 1000"]),
        ("model_warmup { count: 1001 }", ["1001 runs", "at most 1000"]),
    ],
)
def test_a_request_that_does_not_fit_makes_the_model_unavailable(warmed: Warmed, config: str, words: list[str]) -> None:
    warmed.data("short", b"abc")
    state, reason = warmed.start(config)
    assert state == "UNAVAILABLE"
    assert [word for word in words if word not in reason] == [], reason
    assert warmed.runs == []


def test_a_request_that_fails_is_named(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    make_models.save(make_models.gather(), tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "warmup").mkdir()
    (tmp_path / "m" / "warmup" / "index").write_bytes(np.array([9], np.int64).tobytes())
    (tmp_path / "m" / "model.toml").write_text(
        'warmup = [{ name = "nine", inputs = [{ name = "index", data = "index" }] }]\n'
    )
    state, reason = connect(serve(model_repository=(str(tmp_path),))).states()["m"]
    assert (state, "the warm-up request 'nine' failed" in reason) == ("UNAVAILABLE", True)
