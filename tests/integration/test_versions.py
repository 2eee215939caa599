"""Which versions of a model are served, and which of them answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]
Repository = Callable[..., Client]

X = np.ones((1, 4), np.float32)
ALL = [1, 2, 3, 10]


@pytest.fixture
def repository(serve: Serve, connect: Connect, tmp_path: Path) -> Repository:
    """Serves a model "k" whose version k multiplies by k, with the configuration in `text`."""

    def start(text: str = "", file: str = "model.toml", versions: list[int] = ALL) -> Client:
        for version in versions:
            make_models.save(make_models.scale(float(version)), tmp_path / "k" / str(version) / "model.onnx")
        if text:
            (tmp_path / "k" / file).write_text(text)
        return connect(serve(model_repository=(str(tmp_path),)))

    return start


def factor(client: Client, version: str = "") -> int:
    """What the version that answers multiplies by; it must name itself."""
    response = client.call("ModelInfer", infer_request("k", {"x": X}, model_version=version))
    value = int(np.frombuffer(response.raw_output_contents[0], np.float32)[0])
    assert response.model_version == str(value)
    return value


def served(client: Client) -> list[int]:
    """The versions that the index lists, all of which must be ready."""
    models = client.call("RepositoryIndex").models
    assert {(model.name, model.state) for model in models} == {("k", "READY")}
    return [int(model.version) for model in models]


def test_the_newest_version_by_number_is_served_and_no_other(repository: Repository) -> None:
    client = repository()
    assert served(client) == [10]
    assert factor(client) == factor(client, "10") == 10


POLICIES = [
    ("model.toml", 'versions = "latest"', [10]),
    ("model.toml", 'versions = "latest:2"', [3, 10]),
    ("model.toml", 'versions = "latest:99"', ALL),
    ("model.toml", 'versions = "all"', ALL),
    ("model.toml", 'versions = "1,3"', [1, 3]),
    ("model.toml", 'versions = " 3 , 1 "', [1, 3]),
    ("config.pbtxt", "version_policy { latest { } }", [10]),
    ("config.pbtxt", "version_policy { latest { num_versions: 2 } }", [3, 10]),
    ("config.pbtxt", "version_policy: { all { } }", ALL),
    ("config.pbtxt", "version_policy: { specific: { versions: [1, 3] } }", [1, 3]),
    ("config.pbtxt", "version_policy { specific { versions: 2 } }", [2]),
]


@pytest.mark.parametrize(("file", "text", "wanted"), POLICIES, ids=[text for _, text, _ in POLICIES])
def test_the_policy_chooses_the_versions(repository: Repository, file: str, text: str, wanted: list[int]) -> None:
    client = repository(text, file)
    assert served(client) == wanted
    assert list(client.call("ModelMetadata", name="k").versions) == [str(version) for version in wanted]
    assert factor(client) == wanted[-1]
    assert [factor(client, str(version)) for version in wanted] == wanted


def test_a_version_that_is_not_served_is_not_found(repository: Repository) -> None:
    client = repository('versions = "1,3"')
    error = client.error("ModelInfer", infer_request("k", {"x": X}, model_version="2"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "model 'k' has no version '2'; it has 1, 3"


@pytest.mark.parametrize("version", ["01", " 1", "1.0", "+1", "-1", "0"])
def test_a_version_is_named_in_one_way_only(repository: Repository, version: str) -> None:
    error = repository(versions=[1]).error("ModelInfer", infer_request("k", {"x": X}, model_version=version))
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_folders_that_are_no_version_are_left_alone(repository: Repository, tmp_path: Path) -> None:
    for name in ("01", "0", "-1", "1.5", "latest", "２"):
        make_models.save(make_models.scale(99.0), tmp_path / "k" / name / "model.onnx")
    assert served(repository('versions = "all"', versions=[1, 2])) == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('versions = "1,7"', "no version 7; there are [1, 2, 3, 10]"),
        ('versions = "newest"', '"latest", "latest:N", "all"'),
        ('versions = "latest:0"', '"latest", "latest:N", "all"'),
        ('versions = ""', '"latest", "latest:N", "all"'),
        ("versions = [1, 3]", "wanted is str, given is list"),
    ],
)
def test_a_policy_that_cannot_be_followed_makes_the_model_unavailable(
    repository: Repository, text: str, words: str
) -> None:
    (model,) = repository(text).call("RepositoryIndex").models
    assert (model.name, model.version, model.state) == ("k", "", "UNAVAILABLE")
    assert words in model.reason


def break_version(tmp_path: Path, version: int) -> None:
    folder = tmp_path / "k" / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"not a model")


def test_where_the_newest_version_is_broken_the_newest_good_one_answers(repository: Repository, tmp_path: Path) -> None:
    break_version(tmp_path, 11)
    client = repository('versions = "all"')
    assert factor(client) == 10
    assert client.call("ModelReady", name="k").ready
    assert not client.call("ModelReady", name="k", version="11").ready
    error = client.error("ModelInfer", infer_request("k", {"x": X}, model_version="11"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "'k' version 11 is unavailable" in error.details()


def test_where_every_version_is_broken_each_has_its_reason(repository: Repository, tmp_path: Path) -> None:
    break_version(tmp_path, 1)
    break_version(tmp_path, 2)
    client = repository('versions = "all"', versions=[])
    models = client.call("RepositoryIndex").models
    assert [(model.version, model.state) for model in models] == [("1", "UNAVAILABLE"), ("2", "UNAVAILABLE")]
    for model in models:
        assert f"k/{model.version}/model.onnx" in model.reason
    assert not client.call("ModelReady", name="k").ready


def test_each_version_has_its_own_statistics(repository: Repository) -> None:
    client = repository('versions = "1,3"')
    for version in ("1", "3", "", "3"):
        factor(client, version)

    def counts(**fields: Any) -> dict[str, int]:
        stats = client.call("ModelStatistics", **fields).model_stats
        return {model.version: model.inference_count for model in stats}

    assert counts(name="k") == counts() == {"1": 1, "3": 3}
    assert counts(name="k", version="1") == {"1": 1}


def test_each_version_may_take_other_inputs(repository: Repository, tmp_path: Path) -> None:
    make_models.save(make_models.scale(5.0, features=2), tmp_path / "k" / "5" / "model.onnx")
    client = repository('versions = "all"', versions=[1])
    assert client.infer(infer_request("k", {"x": X[:, :2]}))["y"].tolist() == [[5, 5]]
    assert client.infer(infer_request("k", {"x": X}, model_version="1"))["y"].tolist() == [[1, 1, 1, 1]]
    shapes = [list(client.call("ModelMetadata", name="k", version=v).inputs[0].shape) for v in ("1", "5", "")]
    assert shapes == [[-1, 4], [-1, 2], [-1, 2]]


def test_a_filename_other_than_model_onnx_is_taken_from_the_configuration(
    repository: Repository, tmp_path: Path
) -> None:
    make_models.save(make_models.scale(7.0), tmp_path / "k" / "7" / "net.onnx")
    client = repository('default_model_filename: "net.onnx"', "config.pbtxt", versions=[])
    assert factor(client) == 7
    assert client.call("ModelConfig", name="k").config.default_model_filename == "net.onnx"


def test_a_single_file_is_version_1_under_its_stem(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    file = make_models.save(make_models.scale(1.0), tmp_path / "k.onnx")
    client = connect(serve(model=(str(file),)))
    assert served(client) == [1]
    assert factor(client) == factor(client, "1") == 1
