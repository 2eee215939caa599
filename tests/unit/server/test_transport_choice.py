"""Which gRPC server is made: ours where this grpcio has what it takes, grpc.aio's where not or where that is wished."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from trtserve_server.transport import core
from trtserve_server.transport.choice import make_server


def made(transport: str) -> str:
    async def make() -> str:
        server = make_server(transport, {}, [])
        await server.start()
        await server.stop(0)
        return type(server).__name__

    return asyncio.run(make())


@pytest.mark.parametrize(("transport", "name"), [("auto", "QueueServer"), ("asyncio", "AsyncioServer")])
def test_the_configured_one_is_made(transport: str, name: str) -> None:
    assert made(transport) == name


def test_what_a_module_lacks_is_named() -> None:
    has_all = SimpleNamespace(**dict.fromkeys(core._NAMES))
    assert core.missing(has_all) == []
    del has_all.CompletionQueue
    assert core.missing(has_all) == ["CompletionQueue"]


def test_without_the_queue_the_other_serves_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(core, "missing", lambda: ["CompletionQueue"])
    assert made("auto") == "AsyncioServer"
    assert "slower" in caplog.text and "no CompletionQueue" in caplog.text
