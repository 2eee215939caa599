"""Whether shapes lie within what an engine was made for, and made-up inputs that do."""

import numpy as np
import pytest

from trtserve_engines.errors import SignatureError
from trtserve_engines.shape_ranges import check_shapes, example_inputs
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

X = TensorSpec("x", np.dtype(np.float32), (DYNAMIC, DYNAMIC))
S = TensorSpec("s", np.dtype(np.int64), (2,))
SIGNATURE = Signature((X, S), ())
RANGES = (
    {"x": ((1, 2), (2, 4), (8, 8)), "s": ((1, 1), (3, 4), (5, 6))},
    {"x": ((1, 16), (1, 16), (4, 32)), "s": ((1, 1),) * 3},
)


def inputs(*shape):
    return {"x": np.zeros(shape, np.float32), "s": np.zeros(2, np.int64)}


@pytest.mark.parametrize(
    ("shape", "batched", "fits"),
    [
        ((1, 2), False, True),
        ((8, 8), False, True),
        ((4, 32), False, True),
        ((9, 8), False, False),
        ((5, 16), False, False),
        ((1, 12), False, False),
        ((1, 1), False, False),
        ((9, 8), True, True),
        ((100, 20), True, True),
        ((1, 12), True, False),
    ],
)
def test_what_fits(shape, batched, fits):
    if fits:
        check_shapes(RANGES, SIGNATURE, inputs(*shape), batched=batched)
        return
    with pytest.raises(SignatureError, match=f"x {shape[0]}x{shape[1]} given, x 1x2 to 8x8 or x 1x16 to 4x32 wanted"):
        check_shapes(RANGES, SIGNATURE, inputs(*shape), batched=batched)


def test_without_ranges_everything_fits():
    check_shapes((), SIGNATURE, inputs(1000, 1000), batched=False)


def test_examples_lie_within_the_ranges_and_have_the_rows_asked_for():
    examples = list(example_inputs(SIGNATURE, RANGES, 3))
    assert [example["x"].shape for example in examples] == [(3, 4), (3, 2), (3, 16), (3, 16)]
    assert [example["s"].tolist() for example in examples] == [[3, 4], [1, 1], [1, 1], [1, 1]]


def test_without_ranges_sizes_are_tried():
    assert [example["x"].shape for example in example_inputs(Signature((X,), ()), (), 2)][:2] == [(2, 16), (2, 1)]
    fixed = TensorSpec("x", np.dtype(np.float32), (DYNAMIC, 3))
    assert [example["x"].shape for example in example_inputs(Signature((fixed,), ()), (), 2)] == [(2, 3)]
