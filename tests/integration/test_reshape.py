"""`reshape` of a configuration through a real server: requests have the shape of dims, the graph its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from onnx import helper

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from trtserve_client import Client as OurClient, SharedMemory
from trtserve_protos.pool import POOL
from trtserve_server.config import ServerConfig
from trtserve_server.models.effective import effective_text
from trtserve_server.models.repository import scan

SQUARES = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 1, 4 ] reshape { shape: [ 2, 2 ] } label_filename: "labels" }
"""


def turned() -> Any:
    """y = x with its last two of dimensions [batch, 2, 2] exchanged."""
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1])
    dims = ["batch", 2, 2]
    return make_models.model([node], [make_models.tensor("x", dims)], [make_models.tensor("y", dims)])


Start = Callable[..., Client]


@pytest.fixture
def start(serve: Any, connect: Any, tmp_path: Path) -> Start:
    """Serves `proto` as "m" with this config.pbtxt."""

    def started(proto: Any, config: str, file: str = "config.pbtxt", **options: Any) -> Client:
        make_models.save(proto, tmp_path / "m" / "1" / "model.onnx")
        (tmp_path / "m" / file).write_text(config)
        (tmp_path / "m" / "labels").write_text("a\nb\nc\nd")
        return connect(serve(model_repository=(str(tmp_path),), **options))  # type: ignore[no-any-return]

    return started


def test_requests_have_the_shape_of_dims(start: Start) -> None:
    client = start(turned(), SQUARES)
    rows = np.arange(24, dtype=np.float32).reshape(6, 4)
    for count in (1, 6):
        answer = client.infer(infer_request("m", {"x": rows[:count]}))["y"]
        np.testing.assert_array_equal(answer, rows[:count, None, [0, 2, 1, 3]])
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(client.infer, infer_request("m", {"x": rows[n : n + 1]})) for n in range(6)]
        for number, future in enumerate(futures):
            np.testing.assert_array_equal(future.result()["y"], rows[number, [0, 2, 1, 3]].reshape(1, 1, 4))
    error = client.error("ModelInfer", infer_request("m", {"x": rows.reshape(6, 2, 2)}))
    assert "[6, 2, 2]" in error.details() and "[-1, 4]" in error.details()


def test_what_the_model_says_of_itself_are_the_shapes_of_requests(start: Start, tmp_path: Path) -> None:
    client = start(turned(), SQUARES)
    metadata = client.call("ModelMetadata", name="m")
    assert (list(metadata.inputs[0].shape), list(metadata.outputs[0].shape)) == ([-1, 4], [-1, 1, 4])
    config = client.call("ModelConfig", name="m").config
    for tensor, dims in ((config.input[0], [4]), (config.output[0], [1, 4])):
        assert (list(tensor.dims), list(tensor.reshape.shape)) == (dims, [2, 2])
    (tmp_path / "m" / "config.pbtxt").write_text(text_format.MessageToString(config, descriptor_pool=POOL))
    (source,) = scan(ServerConfig(model_repository=(str(tmp_path),)))["m"]
    assert "reshape = [2, 2]" in effective_text(source, ServerConfig())


def test_classes_are_those_of_the_shape_that_is_seen(start: Start) -> None:
    client = start(turned(), SQUARES.replace("[ 1, 4 ]", "[ 4 ]"))
    request = infer_request("m", {"x": np.float32([[0, 9, 5, 1]])}, outputs=["y"])
    request.outputs[0].parameters["classification"].int64_param = 2
    assert client.infer(request)["y"].tolist() == [[b"9.000000:2:c", b"5.000000:1:b"]]


def test_a_dimension_that_the_graph_has_not(start: Start) -> None:
    """Triton's own example: a graph whose batch has rows without dimensions."""
    client = start(
        make_models.identity(dims=("batch",)),
        'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 1 reshape { shape: [ ] } }'
        ' output { name: "y" data_type: TYPE_FP32 dims: 1 reshape { } }',
    )
    rows = np.arange(3, dtype=np.float32).reshape(3, 1)
    np.testing.assert_array_equal(client.infer(infer_request("m", {"x": rows}))["y"], rows)


def test_sizes_that_are_open_pass(start: Start) -> None:
    client = start(
        make_models.identity(dims=("a", "b", 2)),
        "max_batch_size = 0\ninputs = [{ name = 'x', dims = [-1, 2, -1], reshape = [-1, -1, 2] }]",
        "model.toml",
    )
    assert "are not of one size" in client.states()["m"][1]
    client = start(
        make_models.identity(dims=("a", "b", 2)),
        "max_batch_size = 0\ninputs = [{ name = 'x', dims = [1, -1, -1, 2], reshape = [-1, -1, 2] }]",
        "model.toml",
    )
    given = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(client.infer(infer_request("m", {"x": given}))["y"], given[0])


def test_shared_memory_lies_in_the_shape_of_dims(serve: Any, tmp_path: Path) -> None:
    make_models.save(turned(), tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text(SQUARES.replace('label_filename: "labels"', ""))
    server = serve(model_repository=(str(tmp_path),), allow_client_shared_memory=True)
    with OurClient(server.url) as client, SharedMemory(4096) as memory:
        client.register_shared_memory(memory)
        x, y = memory.tensor((2, 4), np.float32), memory.tensor((2, 1, 4), np.float32)
        for number in range(3):
            x.array[:] = np.arange(8).reshape(2, 4) + number
            client.infer("m", {"x": x}, outputs={"y": y})
            np.testing.assert_array_equal(y.array, x.array[:, None, [0, 2, 1, 3]])


X = "max_batch_size = 8\ninputs = [{ name = 'x', %s }]"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (X % "dims = [4], reshape = [4]", "reshape [4] is configured, the graph has [2, 2] behind its batch dimension"),
        (X % "dims = [5], reshape = [2, 2]", "dims [5] and reshape [2, 2] are not of one size"),
        (X % "dims = [-1], reshape = [2, 2]", "dims [-1] and reshape [2, 2] are not of one size"),
        (X % "reshape = [2, 2]", "has a reshape, which needs dims"),
        (X % "dims = [4], reshape = [-2, -2]", "reshape = [-2, -2]; wanted are at most 31 sizes of 0 or more, or -1"),
        (X % f"dims = {[1] * 40 + [4]}, reshape = [2, 2]", "1, 1] ...; wanted are at most 31 sizes"),
        ("inputs = [{ name = 'x', dims = [4], reshape = [2, 2] }]", "has a reshape, which needs max_batch_size"),
        (X % "dims = [4], reshape = [2, 2], datatype = 'INT32'", "INT32 is configured, the graph has FP32"),
        ("max_batch_size = 8\ninputs = [{ name = 'z', dims = [4], reshape = [2, 2] }]", "'z' is configured"),
        (
            "inputs = [{ name = 'a', dims = [4], reshape = [2, 2] }]\n"
            "[[ensemble]]\nmodel = 'other'\ninputs = { x = 'a' }\noutputs = { y = 'b' }",
            "'a' has a reshape; in an ensemble, give it to the models of the steps",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_both_shapes(start: Start, config: str, words: str) -> None:
    state, reason = start(turned(), config, "model.toml").states()["m"]
    assert (state, words in reason) == ("UNAVAILABLE", True), reason
