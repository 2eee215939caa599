"""Timings of builds, combined by TensorRT and kept beside the engines, on the simulation."""

from __future__ import annotations

import pytest

from tests.models import make_models as models
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.step import Watch
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.build_job import BuildJob
from trtserve_engines.tensorrt.build_process import BuildProcess
from trtserve_engines.tensorrt.cache_options import CacheOptions
from trtserve_engines.tensorrt.combine_timings import combine_timings
from trtserve_engines.tensorrt.profiles import with_profiles
from trtserve_engines.tensorrt.provide import provide_engine
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig
from trtserve_engines.tensorrt.toolchain import TensorRtToolchain

pytestmark = pytest.mark.simulated


@pytest.fixture
def timings(tmp_path):
    """Builds a model: what the build learned."""

    def of(proto, base=b""):
        model = read_onnx_model(models.save(proto, tmp_path / "m.onnx"))
        config = with_profiles(BuildConfig(), model.signature)
        return BuildProcess(BuildJob(model.path, config, timing_cache=base)).wait().timing_cache

    return of


def test_two_caches_become_one_that_knows_both(cuda, timings):
    one, other = timings(models.linear()), timings(models.add())
    both = combine_timings(open_driver(), 0, one, other)
    assert len(both) > max(len(one), len(other))
    assert timings(models.linear(), both) == timings(models.add(), both)  # neither learns anything


def test_what_cannot_be_read_is_left_aside(cuda, timings):
    one = timings(models.linear())
    assert combine_timings(open_driver(), 0, b"something else", one) == one


def test_builds_hand_their_timings_on(cuda, tmp_path):
    cache = CacheOptions(str(tmp_path / "cache")).open({})
    for name, proto in (("m", models.linear()), ("n", models.add())):
        model = read_onnx_model(models.save(proto, tmp_path / f"{name}.onnx"))
        chain = TensorRtToolchain(
            model, TensorRtConfig(), 0, cuda_driver="auto", instances=1, folder=cache.timings_folder
        )
        provide_engine(chain, cache, Watch()).engine.close()
        sizes = [path.stat().st_size for path in cache.timings_folder.iterdir()]
        assert len(sizes) == 1
        if name == "m":
            first = sizes[0]
    assert sizes[0] > first
