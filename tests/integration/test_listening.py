"""Where gRPC listens: several addresses, Unix sockets, and models without a file."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_engines.config import ConfigError
from trtserve_server.banner import banner

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]


def test_one_server_listens_on_several_addresses(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = serve(scripted=("echo",), grpc_address=f"127.0.0.1:0, unix:{path}, 127.0.0.1:0")
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    urls = [f"127.0.0.1:{server.app.grpc_ports[0]}", f"unix:{path}", f"127.0.0.1:{server.app.grpc_ports[2]}"]
    assert len(set(urls)) == 3
    for url in urls:
        assert connect(url).infer(infer_request("echo", {"x": x}))["y"].tolist() == x.tolist()
        assert f"gRPC     {url}" in banner(server.app, 1.0)


def test_a_socket_ends_with_its_server_and_what_a_dead_one_left_is_replaced(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = serve(scripted=("echo",), grpc_address=f"unix:{path}")
    assert connect(f"unix:{path}").call("ServerLive").live
    assert stat.S_ISSOCK(path.stat().st_mode)
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("transport", ["auto", "asyncio"])
def test_an_address_that_is_taken_frees_those_that_were_bound_before_it(
    serve: Serve, tmp_path: Path, transport: str
) -> None:
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = f"unix:{path}, 127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="Address already in use"):
            serve(scripted=("echo",), grpc_address=addresses, transport=transport)
    assert not path.exists()
    serve(scripted=("echo",), grpc_address=f"unix:{path}", transport=transport)


@pytest.mark.parametrize("kind", ["taken", "file", "nowhere", "long", "relative"])
def test_a_socket_that_cannot_be_is_refused_with_the_reason(serve: Serve, tmp_path: Path, kind: str) -> None:
    path, words = tmp_path / "s", ""
    if kind == "taken":
        serve(scripted=("echo",), grpc_address=f"unix:{path}")
        words = "Address already in use"
    elif kind == "file":
        path.write_text("mine")
        words = "a file is there that is no socket"
    elif kind == "nowhere":
        path, words = tmp_path / "no" / "s", "is not a folder"
    elif kind == "long":
        path, words = tmp_path / ("s" * 120), "at most 107"
    else:
        path, words = Path("s"), "must be absolute"
    with pytest.raises(ConfigError, match=words):
        RunningServer(scripted=("echo",), grpc_address=f"unix:{path}")
    if kind == "file":
        assert path.read_text() == "mine"


def test_a_scripted_model_says_what_it_is(serve: Serve, connect: Connect) -> None:
    server = serve(scripted=("a:shape=-1x3:type=int32:max_batch_size=4", "b:max_batch_size=0:shape=2x2"))
    client = connect(server)
    metadata: Any = client.call("ModelMetadata", name="a")
    assert (metadata.platform, list(metadata.inputs[0].shape), metadata.inputs[0].datatype) == (
        "scripted",
        [-1, 3],
        "INT32",
    )
    assert client.call("ModelConfig", name="a").config.max_batch_size == 4
    assert client.states() == {"a": ("READY", ""), "b": ("READY", "")}


def test_two_models_of_one_name_serve_neither(serve: Serve, connect: Connect) -> None:
    server = serve(scripted=("a", "a", "b"))
    states = connect(server).states()
    assert states["a"][0] == "UNAVAILABLE"
    assert "two models are called 'a'" in states["a"][1]
    assert states["b"][0] == "READY"


def test_a_scripted_model_is_there_from_the_start_in_every_mode(serve: Serve, connect: Connect) -> None:
    for mode in ("none", "poll", "explicit"):
        server = serve(scripted=("a",), model_control_mode=mode)
        assert connect(server).states() == {"a": ("READY", "")}


def test_a_script_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="scripted = 'a:latency=1': 'latency=1' is unknown"):
        RunningServer(scripted=("a:latency=1",))
