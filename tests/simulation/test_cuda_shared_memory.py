"""CUDA shared memory on the stand-in: a real server reads and writes memory that another process holds."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.cuda_owner import CudaOwner
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_client import Client as OurClient, CudaSharedMemory, CudaSharedMemoryStatus, NotFound

pytestmark = pytest.mark.simulated

ONES = np.ones((1, 4), np.float32)


@pytest.fixture
def client(cuda, tmp_path):
    path = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = RunningServer(
        model=(str(path),), allow_client_shared_memory=True, backend="onnxruntime", device="cpu", http_address=""
    )
    connected = Client(server.url)
    connected.url = server.url
    yield connected
    connected.close()
    server.stop()


@pytest.fixture
def owner(cuda):
    made = CudaOwner("cuda-bindings", 64)
    yield made
    made.close()


def register(client: Client, owner: CudaOwner, **fields: Any) -> None:
    client.call("CudaSharedMemoryRegister", **{"name": "r", "raw_handle": owner.handle, "byte_size": 64, **fields})


def lie(tensor: Any, size: int, offset: int = 0) -> None:
    tensor.parameters["shared_memory_region"].string_param = "r"
    tensor.parameters["shared_memory_byte_size"].int64_param = size
    tensor.parameters["shared_memory_offset"].int64_param = offset


def request() -> Any:
    message = infer_request("double", {"x": ONES}, outputs=["y"])
    del message.raw_input_contents[:]
    lie(message.inputs[0], 16, 4)
    lie(message.outputs[0], 16, 32)
    return message


def test_tensors_come_from_and_go_to_memory_of_a_gpu(client, owner):
    register(client, owner)
    for number in range(3):
        owner.put(4, (ONES * number).tobytes())
        client.call("ModelInfer", request())
        assert owner.get(32, 16) == (ONES * 2 * number).tobytes()


def test_our_client_registers_refers_to_and_forgets_it(client, owner):
    memory = CudaSharedMemory("ours", owner.handle, 64)
    with OurClient(client.url) as ours:
        ours.register_cuda_shared_memory(memory)
        assert ours.cuda_shared_memory_status() == [CudaSharedMemoryStatus("ours", 0, 64)]
        owner.put(0, (ONES * 3).tobytes())
        x, y = memory.tensor((1, 4), np.float32), memory.room(16, offset=32)
        assert dict(ours.infer("double", {"x": x}, outputs={"y": y})) == {}
        assert owner.get(32, 16) == (ONES * 6).tobytes()
        np.testing.assert_array_equal(ours.infer("double", {"x": x})["y"], ONES * 6)
        ours.unregister_cuda_shared_memory(memory)
        assert ours.cuda_shared_memory_status() == []
        with pytest.raises(NotFound):
            ours.infer("double", {"x": x})


def test_regions_are_listed_and_forgotten_and_their_names_are_unique(client, owner):
    register(client, owner)
    (status,) = client.call("CudaSharedMemoryStatus").regions.values()
    assert (status.name, status.device_id, status.byte_size) == ("r", 0, 64)
    assert not client.call("SystemSharedMemoryStatus").regions
    for call, fields in (("Cuda", {"raw_handle": owner.handle, "byte_size": 64}), ("System", {"key": "/k"})):
        error = client.error(f"{call}SharedMemoryRegister", name="r", **fields)
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS
    assert client.error("CudaSharedMemoryStatus", name="s").code() == grpc.StatusCode.NOT_FOUND
    client.call("CudaSharedMemoryUnregister", name="r")
    assert not client.call("CudaSharedMemoryStatus").regions
    assert client.error("ModelInfer", request()).code() == grpc.StatusCode.NOT_FOUND
    register(client, owner)


def test_what_cannot_be_registered_is_refused(client, owner):
    for fields, words in (
        ({"raw_handle": b"short"}, "raw_handle has 5 bytes"),
        ({"raw_handle": b"\1" * 64}, "cannot be opened on GPU 0"),
        ({"device_id": 7}, "device_id = 7; the GPUs of this server are [0]"),
        ({"device_id": -1}, "device_id = -1"),
        ({"byte_size": 0}, "byte_size = 0"),
        ({"byte_size": 65}, "65 bytes of CUDA shared memory region 'r' cannot be opened"),
    ):
        error = client.error(
            "CudaSharedMemoryRegister", **{"name": "r", "raw_handle": owner.handle, "byte_size": 64, **fields}
        )
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and words in error.details(), error.details()
    assert not client.call("CudaSharedMemoryStatus").regions


def test_the_extension_is_advertised_and_windows_are_checked(client, owner):
    assert {"system_shared_memory", "cuda_shared_memory"} <= set(client.call("ServerMetadata").extensions)
    register(client, owner, byte_size=40)
    error = client.error("ModelInfer", request())
    assert "16 bytes at offset 32" in error.details() and "ends at 40" in error.details()


def test_nothing_is_left_when_the_server_ends(cuda, owner, tmp_path):
    before = cuda.live()
    path = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    server = RunningServer(
        model=(str(path),), allow_client_shared_memory=True, backend="onnxruntime", device="cpu", http_address=""
    )
    client = Client(server.url)
    register(client, owner)
    client.call("ModelInfer", request())
    client.close()
    server.stop()
    assert cuda.live() == before
