"""Fixtures of the integration tests: clients, and servers whose engines follow a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.models import make_models
from tests.support.gate import GatedEngines
from tests.support.oip_client import Client
from tests.support.running_server import RunningServer
from trtserve_engines.engine import Arrays
from trtserve_engines.scripted_engine import Compute
from trtserve_server.models import loader

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients of servers; they end with the test."""
    clients: list[Client] = []

    def make(server: RunningServer | str, *arguments: Any) -> Client:
        url = server if isinstance(server, str) else server.url
        clients.append(Client(url, *arguments))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


class Scripted:
    """A server with a model called "m" whose engine follows a script, behind a gate."""

    def __init__(self, server: RunningServer, client: Client, engines: GatedEngines) -> None:
        self.server = server
        self.client = client
        self.gate = engines.gate
        assert engines.engine is not None
        self.engine = engines.engine
        self.engine.batches.clear()  # those of the load

    @property
    def waiting(self) -> int:
        """Requests in the model's queue."""
        return int(self.server.app.registry.find("m").waiting)

    def wait_for_queue(self, waiting: int) -> None:
        """Waits until this many requests are in the queue."""
        self.server.wait_until(lambda: self.waiting == waiting)

    def wait_for_failures(self, count: int) -> None:
        """Waits until this many requests have been refused, cancelled or failed."""
        statistics = self.server.app.registry.find("m").statistics
        self.server.wait_until(lambda: sum(statistics.failures.values()) == count)


Script = Callable[..., Scripted]


@pytest.fixture
def script(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Script]:
    """Starts servers with a scripted engine, and real ones for the files `beside`. The test's end opens their gates.

    `config` is a config.pbtxt of the scripted model's, where it is to have one.
    """
    gates = []

    def start(
        proto: onnx.ModelProto | None = None,
        compute: Compute = y_is_x,
        failure: Callable[[int], Exception | None] = lambda number: None,
        beside: Sequence[str] = (),
        config: str = "",
        **options: Any,
    ) -> Scripted:
        path = tmp_path / "repository" / "m" / "1" / "m.onnx" if config else tmp_path / "m.onnx"
        make_models.save(proto or make_models.identity(), path)
        if config:
            path.parents[1].joinpath("config.pbtxt").write_text(f'default_model_filename: "m.onnx"\n{config}')
            options["model_repository"] = (str(path.parents[2]),)
        engines = GatedEngines(compute, failure)
        gates.append(engines.gate)
        monkeypatch.setattr(loader, "open_engine", engines)
        # A thread for the instance, because a batch that is held on the server's own would hold the server.
        server = serve(model=(*beside,) if config else (str(path), *beside), **{"inline_run_limit_us": 0, **options})
        return Scripted(server, connect(server), engines)

    yield start
    for gate in gates:
        gate.open()


def y_is_x(inputs: Arrays) -> dict:
    """What make_models.identity() computes."""
    return {"y": inputs["x"].copy()}
