"""Requests with and without a batch dimension, for models that have one and for models that have none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.models import make_models
from tests.support.oip_client import Client, arrays_of, infer_request, texts
from tests.support.running_server import RunningServer

Connect = Callable[..., Client]
Serve = Callable[..., RunningServer]
Model = Callable[..., Client]

ROW = np.arange(4, dtype=np.float32)


@pytest.fixture
def model(serve: Serve, connect: Connect, tmp_path: Path) -> Model:
    """A client of a server with one model "m"."""

    def start(proto: onnx.ModelProto, config: str = "") -> Client:
        make_models.save(proto, tmp_path / "m" / "1" / "model.onnx")
        (tmp_path / "m" / "model.toml").write_text(config)
        return connect(serve(model_repository=(str(tmp_path),)))

    return start


def ask(client: Client, raw: bool = True, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs for inputs "x" or others; asked twice, because the second request follows the first one's plan."""
    client.infer(infer_request("m", inputs, raw=raw))
    return client.infer(infer_request("m", inputs, raw=raw))


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_one_row_without_its_batch_dimension_is_answered_in_the_same_form(model: Model, raw: bool) -> None:
    client = model(make_models.scale(2.0))
    np.testing.assert_array_equal(ask(client, raw, x=ROW)["y"], 2 * ROW)
    np.testing.assert_array_equal(ask(client, raw, x=ROW[None])["y"], 2 * ROW[None])
    np.testing.assert_array_equal(ask(client, raw, x=np.stack([ROW, ROW]))["y"], np.stack([2 * ROW, 2 * ROW]))


def test_it_is_so_on_a_stream_for_requested_outputs_and_for_strings(model: Model) -> None:
    client = model(make_models.identity(TensorProto.STRING, ("batch", 2)))
    words = texts(b"a", b"bc")[0]
    (answer,) = client.stream([infer_request("m", {"x": words})])
    assert arrays_of(answer.infer_response)["y"].tolist() == [b"a", b"bc"]
    (answer,) = client.stream([infer_request("m", {"x": words}, outputs=["y"])])
    assert arrays_of(answer.infer_response)["y"].tolist() == [b"a", b"bc"]


def test_rows_without_a_batch_dimension_share_batches_with_others(model: Model) -> None:
    client = model(make_models.scale(2.0), "[batching]\nmax_queue_delay_us = 10_000_000\npreferred_batch_sizes = [3]")
    calls = [client.future(infer_request("m", {"x": x})) for x in (ROW, np.stack([ROW, ROW]))]
    shapes = [arrays_of(call.result())["y"].shape for call in calls]
    assert shapes == [(4,), (2, 4)]
    assert [stats.batch_size for stats in client.statistics("m").batch_stats] == [3]


def test_classes_come_in_the_form_of_the_request(model: Model) -> None:
    client = model(make_models.scale(2.0))

    def classes(x: np.ndarray) -> list[int]:
        request = infer_request("m", {"x": x}, outputs=["y"])
        request.outputs[0].parameters["classification"].int64_param = 2
        return list(client.call("ModelInfer", request).outputs[0].shape)

    assert (classes(ROW), classes(ROW[None])) == ([2], [1, 2])


def test_a_model_of_one_row_takes_it_with_and_without_the_dimension(model: Model) -> None:
    client = model(make_models.identity(dims=(1, 4)))
    assert client.call("ModelConfig", name="m").config.max_batch_size == 0
    np.testing.assert_array_equal(ask(client, x=ROW)["y"], ROW)
    np.testing.assert_array_equal(ask(client, x=ROW[None])["y"], ROW[None])


def test_a_model_without_a_batch_dimension_takes_a_batch_of_one(model: Model) -> None:
    client = model(make_models.identity(dims=(4,)))
    np.testing.assert_array_equal(ask(client, x=ROW)["y"], ROW)
    np.testing.assert_array_equal(ask(client, x=ROW[None])["y"], ROW[None])


def test_a_model_that_is_told_not_to_batch_takes_the_shape_of_its_graph(model: Model) -> None:
    """As at Triton: with max_batch_size 0 the first dimension is one like the others."""
    client = model(make_models.scale(2.0), "max_batch_size = 0")
    assert ask(client, x=np.stack([ROW] * 40))["y"].shape == (40, 4)


TWO = {"a": ROW[None], "b": ROW}
REFUSED = [
    pytest.param(make_models.add(), "", TWO, ["'b'", "[4] given", "[-1, 4] wanted", "to every input"], id="mixed"),
    pytest.param(
        make_models.scale(1.0), "", {"x": ROW[None, None]}, ["[1, 1, 4] given", "[-1, 4] wanted"], id="one-too-many"
    ),
    pytest.param(
        make_models.scale(1.0), "", {"x": ROW[:3]}, ["[3] given", "[-1, 4] wanted", "1 for a single"], id="wrong-size"
    ),
    pytest.param(
        make_models.identity(dims=(4,)),
        "",
        {"x": np.stack([ROW, ROW])},
        ["[2, 4] given", "[4] wanted", "not batched"],
        id="two-rows-for-one",
    ),
    pytest.param(
        make_models.scale(1.0), "max_batch_size = 0", {"x": ROW}, ["[4] given", "[-1, 4] wanted"], id="rows-unknown"
    ),
]


@pytest.mark.parametrize(("proto", "config", "inputs", "words"), REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_with_both_shapes(
    model: Model, proto: onnx.ModelProto, config: str, inputs: dict[str, Any], words: list[str]
) -> None:
    error = model(proto, config).error("ModelInfer", infer_request("m", inputs))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [word for word in words if word not in error.details()] == [], error.details()
