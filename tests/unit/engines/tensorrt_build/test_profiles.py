"""Profiles for a model: derived where that can be done, checked where they were given."""

import numpy as np
import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.signature import Signature, TensorSpec
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.profiles import max_rows, with_profiles

FLOAT, INT64 = np.dtype(np.float32), np.dtype(np.int64)


def signature(**inputs):
    specs = tuple(TensorSpec(name, *spec) for name, spec in inputs.items())
    return Signature(specs, (TensorSpec("y", FLOAT, (-1, 4)),))


IMAGE = signature(x=(FLOAT, (-1, 3, 8, 8)))
ANY_SIZE = signature(x=(FLOAT, (-1, 3, -1, -1)))
TWO = signature(x=(FLOAT, (-1, 4)), length=(INT64, (-1,)))
STATIC = signature(x=(FLOAT, (1, 4)), target=(INT64, (2,)))


@pytest.mark.parametrize(
    ("config", "model", "profiles"),
    [
        (BuildConfig(), IMAGE, ["x=1x3x8x8:32x3x8x8:32x3x8x8"]),
        (BuildConfig(max_batch_size=8, preferred_batch_size=4), IMAGE, ["x=1x3x8x8:4x3x8x8:8x3x8x8"]),
        (BuildConfig(max_batch_size=1), IMAGE, ["x=1x3x8x8"]),
        (BuildConfig(max_batch_size=8), TWO, ["length=1:8:8 x=1x4:8x4:8x4"]),
        (BuildConfig(), STATIC, []),
    ],
)
def test_a_profile_is_derived(config, model, profiles):
    assert list(with_profiles(config, model).profiles) == profiles


@pytest.mark.parametrize(
    ("given", "model"),
    [
        (["x=1x3x32x32:8x3x64x64:32x3x128x128"], ANY_SIZE),
        (["x=1x4:8x4:8x4,length=1:8:8", "length=16 x=16x4"], TWO),
        (["target=1x1:2x2:4x4"], STATIC),
    ],
)
def test_given_profiles_stay_as_they_are(given, model):
    config = BuildConfig(profiles=tuple(given))
    assert with_profiles(config, model).profile_shapes() == config.profile_shapes()


def test_what_comes_out_goes_in_again():
    once = with_profiles(BuildConfig(), TWO)
    assert with_profiles(once, TWO) == once


@pytest.mark.parametrize(
    ("given", "model", "reason"),
    [
        ([], ANY_SIZE, r"input 'x' has the shape \[-1, 3, -1, -1\]: a range for axis 2, 3 cannot be derived"),
        ([], ANY_SIZE, "for example 'x=1x3x224x224:32x3x224x224:32x3x224x224'"),
        (["z=1"], IMAGE, "names input 'z', which the model lacks; it has 'x'"),
        (["x=1x3x9x9"], IMAGE, r"1x3x9x9 does not fit the model's shape \[-1, 3, 8, 8\]"),
        (["x=1x3x8"], IMAGE, "1x3x8 does not fit"),
        (["x=-1x3x8x8"], IMAGE, "-1x3x8x8 does not fit"),
        (["x=1x4"], TWO, r"does not name input 'length' of shape \[-1\]; add its range, for example 'length=1:8:32'"),
        (["x=1x4"], STATIC, r"its shape \[1, 4\] is fixed, so there is no range to give"),
        (["target=1:2:3"], STATIC, "stands for the values that it may have, and it has 2"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_with_what_to_do(given, model, reason):
    with pytest.raises(ConfigError, match=reason):
        with_profiles(BuildConfig(profiles=tuple(given)), model)


def test_the_example_of_an_error_can_be_used_as_it_is():
    with pytest.raises(ConfigError) as caught:
        with_profiles(BuildConfig(), ANY_SIZE)
    example = str(caught.value).rpartition("for example '")[2].rstrip("'")
    assert with_profiles(BuildConfig(profiles=(example,)), ANY_SIZE)


@pytest.mark.parametrize(
    ("given", "model", "rows"),
    [
        (["x=1x4:8x4:8x4,length=1:8:16"], TWO, 8),
        (["x=1x4:8x4:8x4,length=1:8:16", "x=32x4 length=32"], TWO, 32),
        ([], STATIC, None),
    ],
)
def test_the_largest_batch_is_what_all_inputs_allow(given, model, rows):
    assert max_rows(BuildConfig(profiles=tuple(given)).profile_shapes(), model) == rows
