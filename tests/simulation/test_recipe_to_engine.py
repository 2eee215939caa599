"""From a model through a recipe and a build process to an engine at work, held against ONNX Runtime by the gate."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models import make_models as models
from trtserve_engines.accuracy import Tolerance, check
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import AccuracyError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.accuracy_gate import measure
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_job import BuildJob
from trtserve_engines.tensorrt.build_process import BuildProcess
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.runtime import TensorRtEngine

pytestmark = pytest.mark.simulated

GENERATIONS = [
    pytest.param(version, marks=pytest.mark.simulated(SIMULATED_TENSORRT_VERSION=version))
    for version in ("10.16", "11.4")
]
TOLERANCE = Tolerance(accuracy_runs=2)


@pytest.fixture
def gate(tmp_path, cuda):
    def gate(proto, **options):
        model = read_onnx_model(models.save(proto, tmp_path / "model.onnx"))
        config = with_profiles(BuildConfig(max_batch_size=4, **options), model.signature)
        plan = BuildProcess(BuildJob(model.path, config), work_folder=tmp_path).wait().plan
        engine = TensorRtEngine.load(plan, driver=open_driver())
        try:
            report = measure(model, config, TOLERANCE, engine)
            check(report, TOLERANCE, config.precision)
        finally:
            engine.close()
        return report.outputs[0]

    return gate


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(
    ("precision", "largest_error"), [("as-is", 1e-5), ("fp32", 1e-5), ("fp16", 1e-2), ("int8", 2e-1)]
)
def test_an_engine_of_each_precision_passes_the_gate(generation, gate, tmp_path, precision, largest_error):
    images = np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=images)
    output = gate(models.convnet(16, 8, 2), precision=precision, calibration=str(tmp_path / "samples.npz"))
    assert output.max_error < largest_error * output.largest
    assert (output.max_error > 0) == (precision in ("fp16", "int8")) and output.top1 > 0.8


def test_an_engine_that_half_precision_broke_does_not_pass(gate):
    with pytest.raises(AccuracyError, match="output 'y': .* elements are NaN or infinite"):
        gate(models.scale(1e6), precision="fp16", keep_io_types=False)


def test_a_graph_in_bf16_is_built_and_held_against_what_bf16_gives(gate):
    """ONNX Runtime's CPU, the reference, has no kernels for it."""
    output = gate(models.in_bfloat16(models.convnet(16, 8, 2)))
    assert output.max_error < 1e-2 * output.largest
