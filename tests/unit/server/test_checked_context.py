"""The search for NaN, for every type of output."""

import ml_dtypes
import numpy as np
import pytest

from trtserve_server.models.checked_context import has_nan

FLOATS = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [0, 7, 999])
def test_nan_is_found_wherever_it_is(dtype, place):
    array = np.ones(1000, dtype)
    assert not has_nan(array)
    array[place] = np.nan
    assert has_nan(array)
    assert has_nan(array.reshape(10, 100))


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinity_and_nothing_at_all_are_not_nan(dtype):
    assert not has_nan(np.array([np.inf, -np.inf, 0], dtype))
    assert not has_nan(np.zeros((0, 4), dtype))


@pytest.mark.parametrize("array", [np.arange(3), np.array([True]), np.array([b"nan"], object)])
def test_types_without_nan_have_none(array):
    assert not has_nan(array)
