"""What is said to be offered is offered, and nothing else: the table for users, the extensions, the calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.models import make_models
from tests.support.oip_client import Client
from tests.support.running_server import RunningServer
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import BackendUnavailableError
from trtserve_protos import oip

Connect = Callable[..., Client]
Serve = Callable[..., RunningServer]

EXTENSIONS = {
    "model_repository": ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    "model_configuration": ("ModelConfig",),
    "system_shared_memory": tuple(f"SystemSharedMemory{name}" for name in ("Status", "Register", "Unregister")),
    "cuda_shared_memory": tuple(f"CudaSharedMemory{name}" for name in ("Status", "Register", "Unregister")),
    "statistics": ("ModelStatistics",),
    "trace": ("TraceSetting",),
    "logging": ("LogSettings",),
}
"""The extensions that are calls."""


@pytest.fixture
def shares_memory() -> bool:
    """Whether the server lets clients share memory."""
    return True


@pytest.fixture
def client(serve: Serve, connect: Connect, tmp_path: Path, shares_memory: bool) -> Client:
    model = make_models.save(make_models.scale(2.0), tmp_path / "k.onnx")
    return connect(serve(model=(str(model),), allow_client_shared_memory=shares_memory))


def is_offered(client: Client, name: str) -> bool:
    if name == "ModelStreamInfer":
        return list(client.stream([])) == []
    try:
        client.call(name)
    except grpc.RpcError as error:
        return not (error.code() is grpc.StatusCode.UNIMPLEMENTED and "not offered" in error.details())
    return True


def has_gpu() -> bool:
    try:
        open_driver()
    except BackendUnavailableError:
        return False
    return True


def test_the_table_for_users_says_of_every_call_whether_it_is_offered(client: Client, root: Path) -> None:
    rows = re.findall(r"^\| (\w+) \| ((?:not )?offered) \|.*\|$", (root / "docs" / "triton.md").read_text(), re.M)
    assert [name for name, _ in rows] == list(oip.METHODS)
    wanted = dict(rows)
    if not has_gpu():
        wanted |= dict.fromkeys((name for name in wanted if name.startswith("Cuda")), "not offered")
    assert {name: "offered" if is_offered(client, name) else "not offered" for name, _ in rows} == wanted


@pytest.mark.parametrize("shares_memory", [True, False])
def test_extensions_are_advertised_exactly_as_they_are_offered(client: Client) -> None:
    advertised = client.call("ServerMetadata").extensions
    offered = [name for name, calls in EXTENSIONS.items() if all(is_offered(client, call) for call in calls)]
    assert [name for name in advertised if name in EXTENSIONS] == offered
    others = {"binary_tensor_data", "classification", "parameters", "schedule_policy"}
    assert set(advertised) - {*EXTENSIONS} == others
