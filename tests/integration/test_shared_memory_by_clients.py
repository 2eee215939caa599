"""The client's shared memory with a real server, by both clients."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.models import make_models
from tests.support.running_server import RunningServer
from trtserve_client import Client, InputError, InvalidRequest, NotFound, SharedMemory, Unimplemented, aio

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def server(serve: Any, tmp_path: Path) -> RunningServer:
    double = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    words = make_models.save(make_models.identity(TensorProto.STRING), tmp_path / "words.onnx")
    return serve(model=(str(double), str(words)), allow_client_shared_memory=True)  # type: ignore[no-any-return]


def test_inputs_and_outputs_in_shared_memory(server: RunningServer) -> None:
    with Client(server.url) as client, SharedMemory(4096) as memory:
        client.register_shared_memory(memory)
        x, y = memory.tensor((2, 4), np.float32), memory.tensor((2, 4), np.float32)
        for number in range(3):
            x.array[:] = X + number
            result = client.infer("double", {"x": x}, outputs={"y": y})
            np.testing.assert_array_equal(y.array, 2 * (X + number))
            np.testing.assert_array_equal(result["y"], y.array)
            assert np.shares_memory(result["y"], y.array)
        np.testing.assert_array_equal(client.infer("double", {"x": memory.put(X)})["y"], 2 * X)
        text = memory.put(np.array([["a", "\N{SNOWMAN}"]], object))
        assert client.infer("words", {"x": text}, outputs={"y": memory.room(100)})["y"].tolist() == [
            [b"a", b"\xe2\x98\x83"]
        ]
        assert [(each.name, each.key, each.byte_size) for each in client.shared_memory_status()] == [
            (memory.name, memory.key, 4096)
        ]
        with pytest.raises(InvalidRequest, match="of at least 32"):
            client.infer("double", {"x": x}, outputs={"y": memory.room(31)})
        client.unregister_shared_memory(memory)
        assert client.shared_memory_status() == []
        with pytest.raises(NotFound, match="register it first"):
            client.infer("double", {"x": x})


def test_a_stream_refers_to_inputs_in_shared_memory(server: RunningServer) -> None:
    with Client(server.url) as client, SharedMemory(4096) as memory:
        client.register_shared_memory(memory)
        inputs = [{"x": memory.put(X + number)} for number in range(10)]
        for number, result in enumerate(client.stream("double", inputs)):
            np.testing.assert_array_equal(result["y"], 2 * (X + number))


def test_a_batch_in_pieces_comes_from_shared_memory(server: RunningServer) -> None:
    batch = np.arange(400, dtype=np.float32).reshape(100, 4)
    with Client(server.url) as client, SharedMemory(4096) as memory:
        client.register_shared_memory(memory)
        x = memory.put(batch)
        pieces = [answer.result["y"] for answer in client.infer_rows("double", {"x": x})]
        np.testing.assert_array_equal(np.concatenate(pieces), 2 * batch)
        assert len(pieces) == 4
        with pytest.raises(InputError, match="would overwrite"):
            list(client.infer_rows("double", {"x": x}, outputs={"y": memory.room(1600)}))


def test_the_asynchronous_client_shares_memory_too(server: RunningServer) -> None:
    async def main() -> None:
        async with aio.Client(server.url) as client:
            with SharedMemory(65536) as memory:
                await client.register_shared_memory(memory)
                places = [(memory.put(X + number), memory.tensor((2, 4), np.float32)) for number in range(20)]
                results = await asyncio.gather(*(client.infer("double", {"x": x}, outputs={"y": y}) for x, y in places))
                for number, result in enumerate(results):
                    np.testing.assert_array_equal(result["y"], 2 * (X + number))
                (status,) = await client.shared_memory_status()
                assert status.name == memory.name
                await client.unregister_shared_memory(memory)

    asyncio.run(main())


def test_a_server_that_does_not_allow_it_says_how(serve: Any, tmp_path: Path) -> None:
    double = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    with (
        Client(serve(model=(str(double),)).url) as client,
        SharedMemory(64) as memory,
        pytest.raises(Unimplemented, match="--allow-client-shared-memory"),
    ):
        client.register_shared_memory(memory)
