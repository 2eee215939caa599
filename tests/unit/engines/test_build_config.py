"""Options of a build: what is refused and why, and what of them makes up a cache key."""

import dataclasses
import json

import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.device import GpuIdentity
from trtserve_engines.tensorrt.build_config import NOT_IN_KEY, BuildConfig

FIELDS = {field.name: field for field in dataclasses.fields(BuildConfig)}
OTHER_VALUES = {
    "precision": "fp16",
    "keep_fp32_ops": ("Softmax",),
    "keep_io_types": False,
    "calibration_method": "entropy",
    "profiles": ("x=1:2:3",),
    "tf32": False,
    "sparse_weights": True,
    "strict_nans": True,
    "distributive_independence": True,
    "workspace_bytes": 1 << 20,
    "optimization_level": 5,
    "max_aux_streams": 2,
    "avg_timing_iterations": 8,
    "max_num_tactics": 4,
    "tactic_sources": ("jit_convolutions",),
    "tiling": "full",
    "hardware_compatibility": "ampere_plus",
    "version_compatible": True,
    "refit": "all",
    "profiling_verbosity": "detailed",
}


def test_the_defaults_are_good():
    assert BuildConfig().precision == "as-is"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_help(name):
    assert FIELDS[name].metadata["help"]


def test_every_field_is_in_the_key_or_left_out_by_name():
    assert set(BuildConfig().key_fields()) == set(FIELDS) - NOT_IN_KEY
    assert set(FIELDS) >= NOT_IN_KEY


def test_the_key_fields_are_plain_json():
    fields = BuildConfig(**OTHER_VALUES).key_fields()
    assert json.loads(json.dumps(fields)) == fields


@pytest.mark.parametrize("name", sorted(set(FIELDS) - NOT_IN_KEY))
def test_a_field_of_the_key_changes_the_key(name):
    changed = dataclasses.replace(BuildConfig(), **{name: OTHER_VALUES[name]})
    assert changed.key_fields() != BuildConfig().key_fields()


def test_other_spellings_of_the_same_options_have_the_same_key_fields():
    one = BuildConfig(profiles=("a=4 b=1:2:3",), keep_fp32_ops=("Softmax", "Exp"))
    other = BuildConfig(profiles=("b=1:2:3,a=4:4:4",), keep_fp32_ops=("Exp", "Softmax"))
    assert one.key_fields() == other.key_fields()


def test_the_order_of_profiles_is_kept_because_it_is_their_number():
    texts = ("x=8:8:8", "x=1:2:3")
    assert BuildConfig(profiles=texts).key_fields() != BuildConfig(profiles=texts[::-1]).key_fields()
    assert [str(profile) for profile in BuildConfig(profiles=texts).profile_shapes()] == ["x=8", "x=1:2:3"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"precision": "fp8"}, "precision = 'fp8'; wanted is one of as-is, fp32, fp16, bf16, int8"),
        ({"precision": "int8"}, "precision = 'int8' needs calibration: an .npz file"),
        ({"optimization_level": 6}, "optimization_level = 6; wanted is 0 to 5"),
        ({"optimization_level": -1}, "optimization_level = -1"),
        ({"workspace_bytes": -1}, "workspace_bytes = -1"),
        ({"max_aux_streams": -2}, "max_aux_streams = -2"),
        ({"max_batch_size": 0}, "max_batch_size = 0"),
        ({"max_batch_size": 4, "preferred_batch_size": 8}, "preferred_batch_size = 8 is above max_batch_size = 4"),
        ({"tactic_sources": ("cudnn", "magic")}, "tactic_sources has 'magic'; wanted are edge_mask"),
        ({"tactic_sources": ("none", "cudnn")}, "none stands alone"),
        ({"hardware_compatibility": "all"}, "hardware_compatibility = 'all'; wanted is one of none, ampere_plus"),
        ({"refit": "yes"}, "refit = 'yes'"),
        ({"verbosity": "debug"}, "verbosity = 'debug'"),
        ({"plugins": ("lib.so",)}, "plugins has 'lib.so'; wanted is an absolute path"),
        ({"profiles": ("x=3:2:1",)}, "has 3, 2, 1 on axis 0"),
    ],
)
def test_what_cannot_be_built_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        BuildConfig(**options)


GPU = GpuIdentity("NVIDIA H100", (9, 0), 132, 80 << 30, (13, 0))


def test_an_identity_tells_slices_of_one_gpu_apart():
    slice_of_it = dataclasses.replace(GPU, sm_count=16, memory_bytes=10 << 30)
    assert slice_of_it.key_fields() != GPU.key_fields()


def test_an_identity_is_plain_json_and_readable():
    assert json.loads(json.dumps(GPU.key_fields())) == GPU.key_fields()
    assert str(GPU) == "NVIDIA H100 (compute 9.0, 132 SMs, 80.0 GiB, CUDA driver 13.0)"
