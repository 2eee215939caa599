"""Samples for the accuracy gate, and the gate itself on recipes that run on the CPU."""

import numpy as np
import pytest

from tests.models import make_models as models
from trtserve_engines.accuracy import Tolerance, check, compare
from trtserve_engines.config import ConfigError, OnnxRuntimeOptions
from trtserve_engines.errors import AccuracyError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.signature import Signature, TensorSpec
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.gate_samples import gate_samples
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.recipes import apply_recipe

FLOAT, INT64 = np.dtype(np.float32), np.dtype(np.int64)
SIGNATURE = Signature((TensorSpec("x", FLOAT, (-1, -1)), TensorSpec("target", INT64, (2,))), ())
CONFIG = BuildConfig(profiles=("x=2x4:4x8:8x16 target=1x1:2x4:8x8", "x=1x4 target=1x1:2x4:8x8"))


def test_made_up_samples_are_small_in_each_profile_and_at_last_of_usual_size():
    samples = gate_samples(SIGNATURE, CONFIG, Tolerance(accuracy_runs=3))
    assert [sample["x"].shape for sample in samples] == [(2, 4), (1, 4), (4, 8)]
    assert [sample["target"].tolist() for sample in samples] == [[1, 1], [1, 1], [2, 4]]
    assert samples[0]["target"].dtype == INT64 and samples[0]["x"][0, 0] != samples[1]["x"][0, 0]


def test_a_static_model_needs_no_profile():
    signature = Signature((TensorSpec("x", FLOAT, (2, 3)),), ())
    assert gate_samples(signature, BuildConfig(), Tolerance(accuracy_runs=1))[0]["x"].shape == (2, 3)


def given(tmp_path, **arrays):
    np.savez(tmp_path / "s.npz", **arrays)
    return Tolerance(accuracy_samples=str(tmp_path / "s.npz"), accuracy_runs=4)


def test_real_samples_are_cut_to_what_a_profile_takes(tmp_path):
    tolerance = given(tmp_path, x=np.zeros((6, 4), np.float32), target=np.ones((6, 2), np.int64))
    samples = gate_samples(SIGNATURE, CONFIG, tolerance)
    assert [sample["x"].shape for sample in samples] == [(1, 4)] * 4


def test_samples_that_no_profile_takes_are_refused(tmp_path):
    tolerance = given(tmp_path, x=np.zeros((6, 99), np.float32), target=np.ones((6, 2), np.int64))
    with pytest.raises(ConfigError, match="no sample in .*s.npz has shapes within a profile .target="):
        gate_samples(SIGNATURE, CONFIG, tolerance)
    wrong_values = given(tmp_path, x=np.zeros((6, 4), np.float32), target=np.full((6, 2), 9, np.int64))
    with pytest.raises(ConfigError, match="no sample"):
        gate_samples(SIGNATURE, CONFIG, wrong_values)


@pytest.fixture
def gate(tmp_path):
    """Compares a recipe's graph with the original, both in ONNX Runtime."""

    def gate(proto, tolerance=None, **options):
        tolerance = tolerance or Tolerance()
        model = read_onnx_model(models.save(proto, tmp_path / "original.onnx"))
        config = with_profiles(BuildConfig(max_batch_size=4, **options), model.signature)
        changed = read_onnx_model(apply_recipe(model, config, tmp_path).path)
        engines = [OnnxRuntimeEngine.load(each, OnnxRuntimeOptions()) for each in (model, changed)]
        report = compare(*engines, gate_samples(model.signature, config, tolerance), made_up=True)
        check(report, tolerance, config.precision)
        return report.outputs[0]

    return gate


def test_a_graph_in_half_precision_passes(gate):
    output = gate(models.convnet(16, 8, 2), precision="fp16")
    assert 0 < output.max_error < 0.05 * output.largest and output.top1 is not None


def test_a_graph_in_eight_bits_passes(gate, tmp_path):
    images = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "c.npz", image=images)
    output = gate(models.convnet(16, 8, 2), precision="int8", calibration=str(tmp_path / "c.npz"))
    assert output.cosine > 0.99


def test_a_graph_that_half_precision_breaks_is_refused(gate):
    """A factor that FP16 cannot hold is cut to its largest number, and what it gives overflows."""
    with pytest.raises(AccuracyError, match="output 'y': .* elements are NaN or infinite"):
        gate(models.scale(1e6), precision="fp16", keep_io_types=False)


def test_a_limit_that_is_too_tight_says_by_how_much(gate):
    with pytest.raises(AccuracyError, match=r"output 'logits': max error .*, largest allowed is 1e-09"):
        gate(models.convnet(16, 8, 2), Tolerance(max_error=1e-9), precision="fp16")
