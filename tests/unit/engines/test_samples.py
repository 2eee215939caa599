"""Made-up inputs: their shapes, values and that they are the same every time."""

import ml_dtypes
import numpy as np
import pytest

from trtserve_engines.samples import sample_inputs
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

DTYPES = ["bool", "uint8", "int8", "uint16", "int64", "uint64", "float16", "float32", "float64", "object"]


def sample(dtype, shape, **options):
    return sample_inputs(Signature((TensorSpec("x", np.dtype(dtype), shape),), ()), **options)["x"]


@pytest.mark.parametrize("dtype", [*DTYPES, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((), ()), ((2, 3), (2, 3)), ((DYNAMIC,), (4,)), ((DYNAMIC, 3, DYNAMIC), (4, 3, 5)), ((2, DYNAMIC), (2, 5))],
    ids=str,
)
def test_samples_fit_the_signature(dtype, shape, wanted):
    signature = Signature((TensorSpec("x", np.dtype(dtype), shape),), ())
    inputs = sample_inputs(signature, rows=4, dynamic_size=5)
    assert inputs["x"].shape == wanted
    signature.check(inputs)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int64", "uint64"])
def test_integers_are_valid_indices_into_any_table_of_two(dtype):
    assert set(sample(dtype, (100,)).astype(int).tolist()) == {0, 1}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16], ids=str)
def test_floating_point_is_finite_and_varied(dtype):
    values = sample(dtype, (100,)).astype(np.float64)
    assert np.isfinite(values).all()
    assert (values < 0).any()
    assert (values > 0).any()


def test_strings_differ_and_are_bytes():
    elements = sample(object, (2, 3)).ravel().tolist()
    assert len(set(elements)) == 6
    assert all(isinstance(element, bytes) for element in elements)


def test_a_seed_decides_the_values():
    first, again, other = (sample("float32", (10,), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_inputs_differ_from_each_other():
    specs = tuple(TensorSpec(name, np.dtype(np.float32), (10,)) for name in ("a", "b"))
    inputs = sample_inputs(Signature(specs, ()))
    assert not np.array_equal(inputs["a"], inputs["b"])


def test_rows_are_one_unless_asked_for():
    assert sample("float32", (DYNAMIC, DYNAMIC)).shape == (1, 1)
