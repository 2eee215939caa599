"""The configuration in force: as ModelConfig through gRPC, as --print-config on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from tests.support.server_process import run
from trtserve_engines.options import build
from trtserve_server.config import ModelConfig
from trtserve_server.pbtxt import values_from_message

Connect = Callable[..., Client]
Serve = Callable[..., RunningServer]

MODEL_TOML = """
versions = "1,2"
filename = "net.onnx"
max_batch_size = 6
instances = 2
warmup_runs = 3
inputs = [{ name = "x", dims = [5] }]
outputs = [{ name = "y", label_filename = "labels.txt" }]
warmup = [
    { name = "zero", batch_size = 2, count = 2, inputs = [{ name = "x", dims = [5], data = "zero" }] },
    { name = "any", inputs = [{ name = "x", datatype = "FP32" }] },
    { name = "file", inputs = [{ name = "x", dims = [5], data = "x.bin" }] },
]
levels = [{ level = 1, max_queue_size = 5, default_timeout_us = 9, timeout_action = "reject" }]

[batching]
preferred_batch_sizes = [2, 4]
max_queue_delay_us = 50
max_queue_size = 77
priority_levels = 3
default_priority_level = 2
default_timeout_us = 500
timeout_action = "delay"
allow_timeout_override = false

[onnxruntime]
intra_op_threads = 1
inter_op_threads = 2
graph_optimization_level = "extended"
execution_mode = "parallel"
memory_arena = false
memory_pattern = false
spinning = true
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model "m" with everything configured, and "n" with nothing."""
    for version in ("1", "2"):
        make_models.save(make_models.identity(), tmp_path / "m" / version / "net.onnx")
    (tmp_path / "m" / "model.toml").write_text(MODEL_TOML)
    (tmp_path / "m" / "labels.txt").write_text("a\nb\n")
    (tmp_path / "m" / "warmup").mkdir()
    (tmp_path / "m" / "warmup" / "x.bin").write_bytes(bytes(20))
    make_models.save(make_models.scale(2.0), tmp_path / "n" / "1" / "model.onnx")
    return tmp_path


def test_the_configuration_read_back_is_the_one_in_force(serve: Serve, connect: Connect, repository: Path) -> None:
    """ModelConfig says everything that is honoured: as a config.pbtxt it would give the same model again."""
    server = serve(model_repository=(str(repository),))
    client = connect(server)
    for name in ("m", "n"):
        message = client.call("ModelConfig", name=name).config
        again = build(ModelConfig, values_from_message(message, "test"), "test")
        effective = server.app.registry.find(name).effective.config
        assert again == replace(effective, versions="latest:1" if name == "n" else effective.versions)


def test_what_was_not_configured_is_completed_from_the_graph(serve: Serve, connect: Connect, repository: Path) -> None:
    config = connect(serve(model_repository=(str(repository),))).call("ModelConfig", name="n").config
    assert (config.max_batch_size, list(config.input[0].dims), list(config.output[0].dims)) == (32, [4], [4])
    assert config.parameters["batching_reason"].string_value.startswith("3 rows one by one")


def test_sizes_that_the_configuration_fixes_are_held_to(serve: Serve, connect: Connect, repository: Path) -> None:
    """The graph of "m" takes rows of any length, its configuration 5 only."""
    client = connect(serve(model_repository=(str(repository),)))
    assert list(client.call("ModelMetadata", name="m").inputs[0].shape) == [-1, 5]
    assert client.infer(infer_request("m", {"x": np.ones((2, 5), np.float32)}))["y"].shape == (2, 5)
    error = client.error("ModelInfer", infer_request("m", {"x": np.ones((2, 6), np.float32)}))
    assert (error.code(), "[2, 6]" in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert "[-1, 5]" in error.details()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inputs = [{ name = 'x', datatype = 'FP16' }]", ["'x'", "FP16 is configured", "the graph has FP32"]),
        ("inputs = [{ name = 'x', dims = [7] }]", ["dims [7] are configured", "the graph has [4]"]),
        ("outputs = [{ name = 'z' }]", ["'z' is configured", "the graph has 'y'"]),
        ("outputs = [{ name = 'y', label_filename = 'none.txt' }]", ["none.txt"]),
        ("max_batch_size = 0\ninputs = [{ name = 'x', dims = [4] }]", ["dims [4]", "[-1, 4]"]),
    ],
)
def test_what_contradicts_the_graph_is_an_error_that_shows_both(
    serve: Serve, connect: Connect, repository: Path, text: str, words: list[str]
) -> None:
    (repository / "n" / "model.toml").write_text(text)
    state, reason = connect(serve(model_repository=(str(repository),))).states()["n"]
    assert state == "UNAVAILABLE"
    for word in words:
        assert word in reason


def test_print_config_shows_what_is_in_force_and_marks_what_was_completed(repository: Path) -> None:
    make_models.save(make_models.scale(1.0), repository / "broken" / "1" / "model.onnx").write_bytes(b"no")
    printed = run("--print-config", "--model-repository", str(repository), "--instances", "3").stdout
    heads = [line for line in printed.splitlines() if line.startswith("# Model")]
    assert [head.split(":")[0] for head in heads] == [
        "# Model broken, version 1",
        "# Model m, version 1",
        "# Model m, version 2",
        "# Model n, version 1",
    ]
    assert "not an ONNX model" in heads[0]
    n = printed.split("# Model n, version 1")[1]
    assert "#   max_batch_size = 32  # completed: 3 rows one by one and together gave the same numbers" in n
    assert (
        'inputs = [{name = "x", datatype = "FP32", dims = [4], label_filename = ""}]  # completed: from the graph' in n
    )
    assert '#   instance_groups = [{count = 3, device = "cpu"}]  # completed: the server\'s number' in n
    m = printed.split("# Model m, version 2")[1].split("# Model n")[0]
    assert "#   max_batch_size = 6\n" in m
    assert '#   instance_groups = [{count = 2, device = "cpu"}]' in m
    assert "intra_op_threads = 1" in m
