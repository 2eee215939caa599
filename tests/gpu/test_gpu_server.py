"""The whole server on a real GPU: ONNX Runtime's numbers, and a second start that builds nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.models import make_models as models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig

pytestmark = pytest.mark.gpu

PROTO = models.convnet(16, 8, 2)
IMAGES = np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32)
TIMEOUT_S = 300.0


@pytest.fixture(autouse=True)
def gpu() -> None:
    """Skips where the machine lacks something, by its name."""
    machine = look_at_machine("auto")
    if problem := machine.gpu_problem or machine.tensorrt_problem:
        pytest.skip(problem)


def expected(path: Path) -> np.ndarray:
    """ONNX Runtime's answer."""
    engine = OnnxRuntimeEngine.load(read_onnx_model(path), OnnxRuntimeOptions(intra_op_threads=1))
    context = engine.create_context(batched=False)
    answer = context.run([{"image": IMAGES}]).outputs["logits"]
    context.close()
    engine.close()
    return answer


@pytest.mark.parametrize("while_building", ["wait", "serve-on-cpu"])
@pytest.mark.parametrize(("precision", "tolerance"), [("as-is", 5e-3), ("fp16", 2e-2)])
def test_the_server_gives_onnx_runtimes_numbers_and_keeps_the_engine(
    serve: Callable[..., RunningServer], tmp_path: Path, precision: str, tolerance: float, while_building: str
) -> None:
    path = models.save(PROTO, tmp_path / "m.onnx")
    wanted = expected(path)
    for source in ("built in ", "cache"):
        server = serve(
            model=(str(path),),
            backend="tensorrt",
            device="gpu:0",
            instances=2,
            while_building=while_building,
            engine_cache=str(tmp_path / "cache"),
            tensorrt=TensorRtConfig(precision=precision, optimization_level=1),
        )
        client = Client(server.url)
        server.wait_until(lambda server=server: server.app.registry.find("m").backend == "tensorrt", TIMEOUT_S)
        got = client.infer(infer_request("m", {"image": IMAGES}))["logits"]
        assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()
        facts = client.call("ModelMetadata", name="m").parameters
        assert facts["engine_source"].string_param.startswith(source)
        assert facts["max_batch_size"].int64_param == 32
        client.close()
        server.stop()
