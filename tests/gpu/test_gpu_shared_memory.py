"""CUDA shared memory for real: a server reads and writes memory of a GPU that another process holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.cuda_owner import CudaOwner
from tests.support.oip_client import Client, infer_request
from trtserve_engines.cuda.api import Driver

pytestmark = pytest.mark.gpu


def test_tensors_come_from_and_go_to_memory_of_another_process(driver: Driver, serve: Any, tmp_path: Path) -> None:
    size = 1_000_000
    path = make_models.save(make_models.scale(2.0, size // 4), tmp_path / "double.onnx")
    server = serve(model=(str(path),), allow_client_shared_memory=True, backend="onnxruntime", device="cpu")
    client, owner = Client(server.url), CudaOwner(driver.name, 2 * size)
    try:
        client.call("CudaSharedMemoryRegister", name="r", raw_handle=owner.handle, byte_size=2 * size)
        array = np.random.default_rng(0).standard_normal((1, size // 4)).astype(np.float32)
        message = infer_request("double", {"x": array}, outputs=["y"])
        del message.raw_input_contents[:]
        for tensor, offset in ((message.inputs[0], 0), (message.outputs[0], size)):
            tensor.parameters["shared_memory_region"].string_param = "r"
            tensor.parameters["shared_memory_byte_size"].int64_param = size
            tensor.parameters["shared_memory_offset"].int64_param = offset
        for number in range(3):
            owner.put(0, (array + number).tobytes())
            client.call("ModelInfer", message)
            np.testing.assert_array_equal(np.frombuffer(owner.get(size, size), np.float32), 2 * (array + number)[0])
        error = client.error("CudaSharedMemoryRegister", name="s", raw_handle=owner.handle, byte_size=1 << 40)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "cannot be opened" in error.details()
        client.call("CudaSharedMemoryUnregister")
    finally:
        owner.close()
        client.close()
