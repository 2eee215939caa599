"""Models whose files come with the load request: served as those on disk are, checked as they are, left nowhere."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from trtserve_protos import oip

INVALID, FAILED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
X = np.ones((1, 4), np.float32)


def scale(factor: float) -> bytes:
    return make_models.scale(factor).SerializeToString()


def load_request(name: str, files: dict[str, Any], config: Any = "{}") -> Any:
    request = oip.RepositoryModelLoadRequest(model_name=name)
    if config is not None:
        request.parameters["config"].string_param = config if isinstance(config, str) else json.dumps(config)
    for path, content in files.items():
        setattr(
            request.parameters[f"file:{path}"],
            "bytes_param" if isinstance(content, bytes) else "string_param",
            content,
        )
    return request


class Explicit:
    """A server in explicit mode with "k" (factor 2) in its repository; `left` is what lies among temporary files."""

    def __init__(self, client: Client, temporary: Path) -> None:
        self.client = client
        self.temporary = temporary

    @property
    def left(self) -> list[Path]:
        return list(self.temporary.iterdir())

    def load(self, name: str, files: dict[str, Any], config: Any = "{}") -> None:
        self.client.call("RepositoryModelLoad", load_request(name, files, config))

    def refused(self, name: str, files: dict[str, Any], config: Any = "{}") -> tuple[grpc.StatusCode, str]:
        error = self.client.error("RepositoryModelLoad", load_request(name, files, config))
        return error.code(), error.details()

    def factor(self, name: str, **fields: Any) -> float:
        return float(self.client.infer(infer_request(name, {"x": X}, **fields))["y"][0, 0])


@pytest.fixture
def explicit(serve: Any, connect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explicit:
    make_models.save(make_models.scale(2.0), tmp_path / "models" / "k" / "1" / "model.onnx")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return Explicit(
        connect(serve(model_repository=(str(tmp_path / "models"),), model_control_mode="explicit")), temporary
    )


def test_a_model_that_is_on_no_disk_is_served_and_leaves_nothing(explicit: Explicit) -> None:
    config = {"max_batch_size": 3, "version_policy": {"all": {}}}
    explicit.load("n", {"1/model.onnx": scale(5), "7/model.onnx": scale(7)}, config)
    assert (explicit.factor("n"), explicit.factor("n", model_version="1")) == (7, 5)
    assert explicit.client.call("ModelConfig", name="n").config.max_batch_size == 3
    assert explicit.left == []
    explicit.load("n", {"1/model.onnx": scale(9)})
    assert explicit.factor("n") == 9
    assert explicit.client.call("ModelMetadata", name="n").versions == ["1"]
    explicit.client.call("RepositoryModelUnload", model_name="n")
    assert explicit.left == []
    assert explicit.client.states()["n"] == ("UNAVAILABLE", "unloaded")
    assert explicit.client.error("RepositoryModelLoad", model_name="n").code() is grpc.StatusCode.NOT_FOUND


def test_files_stand_in_for_those_on_disk_until_the_next_load(explicit: Explicit) -> None:
    explicit.client.call("RepositoryModelLoad", model_name="k")
    explicit.load("k", {"1/model.onnx": scale(5)})
    assert explicit.factor("k") == 5
    explicit.client.call("RepositoryModelLoad", model_name="k")
    assert explicit.factor("k") == 2


def test_labels_and_warm_up_data_and_external_data_are_files_too(explicit: Explicit, tmp_path: Path) -> None:
    model, data = with_external_data(tmp_path, "weights")
    config = {
        "max_batch_size": 4,
        "output": [{"name": "y", "label_filename": "labels.txt"}],
        "model_warmup": [{"name": "w", "inputs": {"x": {"dims": [4], "input_data_file": "row"}}}],
    }
    files = {"1/model.onnx": model, "1/weights": data, "labels.txt": b"a\nb\nc\nd", "warmup/row": X.tobytes()}
    explicit.load("n", files, config)
    request = infer_request("n", {"x": np.float32([[1, 2, 4, 3]])}, outputs=["y"])
    request.outputs[0].parameters["classification"].int64_param = 1
    assert explicit.client.infer(request)["y"].tolist() == [[b"8.000000:2:c"]]
    assert explicit.left == []


def with_external_data(folder: Path, location: str) -> tuple[bytes, bytes]:
    """A model that doubles, its factor in a file called `location`."""
    proto = make_models.scale(2.0)
    for tensor in proto.graph.initializer:
        tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("float_data")
        onnx.external_data_helper.set_external_data(tensor, location)
    raw = proto.graph.initializer[0].raw_data
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
    return proto.SerializeToString(), raw


MODEL = scale(2)


@pytest.mark.parametrize(
    ("name", "files", "config", "code", "words"),
    [
        ("n", {"1/model.onnx": MODEL}, None, INVALID, "without 'config'"),
        ("n", {"1/model.onnx": "text"}, "{}", INVALID, "wanted is the content of the file as bytes"),
        ("n", {"1/model.onnx": MODEL}, "{", INVALID, "not a ModelConfig in JSON"),
        ("n", {"1/model.onnx": MODEL}, {"name": "other"}, INVALID, "'other'"),
        ("n", {"../1/model.onnx": MODEL}, "{}", INVALID, "inside the model's folder"),
        ("n", {"/tmp/model.onnx": MODEL}, "{}", INVALID, "inside the model's folder"),
        ("n", {"1/mo\0del.onnx": MODEL}, "{}", INVALID, "inside the model's folder"),
        ("n", {"": MODEL}, "{}", INVALID, "'file:' names no file"),
        ("n", {"1": MODEL, "1/model.onnx": MODEL}, "{}", FAILED, "cannot be stored"),
        ("n", {"1/" + "m" * 300: MODEL}, "{}", FAILED, "cannot be stored: File name too long"),
        ("n", {"model.onnx": MODEL}, "{}", INVALID, "holds no version folder"),
        ("n", {"1/other.onnx": MODEL}, "{}", FAILED, "holds no model.onnx"),
        ("n", {"1/model.onnx": b"no model"}, "{}", FAILED, "not an ONNX model"),
        ("n", {"1/model.onnx": MODEL}, {"input": [{"name": "z"}]}, FAILED, "'z'"),
        ("../n", {"1/model.onnx": MODEL}, "{}", INVALID, "is no name of a model"),
        ("a/b", {"1/model.onnx": MODEL}, "{}", INVALID, "is no name of a model"),
        (".n", {"1/model.onnx": MODEL}, "{}", INVALID, "is no name of a model"),
        ("n\0", {"1/model.onnx": MODEL}, "{}", INVALID, "is no name of a model"),
        ("n" * 300, {"1/model.onnx": MODEL}, "{}", FAILED, "File name too long"),
    ],
)
def test_what_cannot_be_served_is_refused_and_leaves_nothing(
    explicit: Explicit, name: str, files: dict[str, Any], config: Any, code: grpc.StatusCode, words: str
) -> None:
    refused = explicit.refused(name, files, config)
    assert (refused[0], words in refused[1]) == (code, True), refused
    assert explicit.left == []
    explicit.load("n", {"1/model.onnx": MODEL})
    assert explicit.factor("n") == 2


@pytest.mark.parametrize("location", ["../../../../../../../etc/hostname", "missing"])
def test_external_data_outside_the_given_files_is_not_opened(explicit: Explicit, tmp_path: Path, location: str) -> None:
    model, _ = with_external_data(tmp_path, location)
    code, details = explicit.refused("n", {"1/model.onnx": model})
    assert code is FAILED and "external data" in details
    assert explicit.left == []


def test_a_failed_load_leaves_the_old_one_serving(explicit: Explicit) -> None:
    explicit.load("k", {"1/model.onnx": scale(5)})
    assert explicit.refused("k", {"1/model.onnx": b"no model"})[0] is FAILED
    assert explicit.factor("k") == 5
    assert explicit.client.states()["k"][0] == "READY"
    assert explicit.left == []


def test_a_disk_that_takes_no_files_is_told(explicit: Explicit) -> None:
    explicit.temporary.rmdir()
    code, details = explicit.refused("n", {"1/model.onnx": MODEL})
    assert (code, "cannot be stored: No such file" in details) == (FAILED, True)
    explicit.temporary.mkdir()
    explicit.load("n", {"1/model.onnx": MODEL})


def test_an_ensemble_can_be_given_with_a_file_that_nobody_reads(explicit: Explicit) -> None:
    step = {"model_name": "k", "input_map": {"x": "in"}, "output_map": {"y": "out"}}
    explicit.load("e", {"1/empty": b""}, {"platform": "ensemble", "ensemble_scheduling": {"step": [step]}})
    assert explicit.client.infer(infer_request("e", {"in": X}))["out"][0, 0] == 2
    assert explicit.left == []


def test_other_modes_take_no_files(serve: Callable[..., Any], connect: Any, tmp_path: Path) -> None:
    make_models.save(make_models.scale(2.0), tmp_path / "k" / "1" / "model.onnx")
    client = connect(serve(model_repository=(str(tmp_path),)))
    assert client.error("RepositoryModelLoad", load_request("k", {"1/model.onnx": MODEL})).code() is FAILED
