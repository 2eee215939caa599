"""Unloading gives the memory back: measured in a server process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.server_process import ServerProcess

ROUNDS = 50
FEATURES = 1500  # 9 MB of weights


@pytest.fixture
def start() -> Iterator[Callable[..., ServerProcess]]:
    processes: list[ServerProcess] = []

    def make(*arguments: str) -> ServerProcess:
        processes.append(ServerProcess(*arguments))
        return processes[-1]

    yield make
    for process in processes:
        process.close()


@pytest.mark.parametrize("inline_run_limit_us", ["0", "1000000"], ids=["thread", "inline"])
def test_fifty_rounds_of_load_and_unload_leave_the_memory_as_it_was(
    start: Callable[..., ServerProcess], tmp_path: Path, inline_run_limit_us: str
) -> None:
    make_models.save(make_models.linear(FEATURES, FEATURES), tmp_path / "m" / "1" / "model.onnx")
    server = start(
        *("--model-repository", str(tmp_path), "--model-control-mode", "explicit", "--log-level", "warning"),
        *("--inline-run-limit-us", inline_run_limit_us, "--onnxruntime-intra-op-threads", "1"),
    )
    client = Client(server.url)
    x = np.ones((1, FEATURES), np.float32)

    def rounds(count: int) -> int:
        for _ in range(count):
            client.call("RepositoryModelLoad", model_name="m")
            assert client.infer(infer_request("m", {"x": x}))["y"].shape == (1, FEATURES)
            loaded = server.resident_bytes
            client.call("RepositoryModelUnload", model_name="m")
        assert server.resident_bytes < loaded - 4 * FEATURES**2 / 2  # most of the weights, at once
        return server.resident_bytes

    first = rounds(2)
    assert rounds(ROUNDS) < 1.05 * first
    client.close()
