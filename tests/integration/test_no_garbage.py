"""Requests form no cycles: what they held is free when they are answered, not when Python next looks for garbage."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_protos import row_inference


def test_calls_of_all_kinds_leave_no_garbage(
    serve: Callable[..., RunningServer], connect: Callable[..., Client], tmp_path: Path
) -> None:
    server = serve(model=(str(make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")),))
    client = connect(server)
    good, bad = (infer_request(name, {"x": np.ones((1, 4), np.float32)}) for name in ("double", "nobody"))
    rows = client.channel.unary_stream(row_inference.METHODS["InferRows"].path)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(20):
            client.infer(good)
            client.error("ModelInfer", bad)
            list(client.stream([good, bad, good]))
            list(rows(row_inference.InferRowsRequest(batch=good).SerializeToString()))
        server.wait_until(lambda: not server.app._intake.inside)
        gc.collect()
        ours = {type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("trtserve_server")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert ours == set()
