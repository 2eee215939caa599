"""A device that is lost to the process: the server says so, answers what it can, and ends with a code of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.server_process import ServerProcess
from trtserve_server.lifecycle import EXIT_DEVICE_LOST


def test_the_server_ends_with_a_code_of_its_own_once_it_has_drained(tmp_path: Path) -> None:
    path = make_models.save(make_models.identity(), tmp_path / "m.onnx")
    server = ServerProcess(str(path), "--inline-run-limit-us=0", module="tests.support.lost_device_server")
    client = Client(server.url)
    good = client.infer(infer_request("m", {"x": np.ones((1, 3), np.float32)}))
    assert good["y"].tolist() == [[1, 1, 1]]
    error = client.error("ModelInfer", infer_request("m", {"x": np.full((1, 3), -999, np.float32)}))
    assert "CUDA_ERROR_LAUNCH_FAILED" in error.details()
    assert server.wait() == EXIT_DEVICE_LOST
    assert "a device is lost to this process" in server.log
    assert "only a new process can use it again" in server.log
    client.close()
    server.close()
