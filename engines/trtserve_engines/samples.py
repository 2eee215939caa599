"""Made-up inputs that fit a signature: for warm-up, for the batch self-test, for checks without real data."""

from __future__ import annotations

import numpy as np

from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

DYNAMIC_SIZES = (16, 1, 64, 224)
"""Worth trying in turn for dynamic dimensions other than the first: a graph may refuse short or odd ones."""


def sample_inputs(
    signature: Signature, *, rows: int = 1, dynamic_size: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays for every input. A dynamic first dimension gets `rows`, every other dynamic one `dynamic_size`.

    Floating point is drawn from a normal distribution, integers are 0 or 1 (an index into any table stays valid),
    strings are short words. The same seed gives the same arrays.
    """
    random = np.random.default_rng(seed)
    return {spec.name: _sample(spec, rows, dynamic_size, random) for spec in signature.inputs}


def _sample(spec: TensorSpec, rows: int, dynamic_size: int, random: np.random.Generator) -> np.ndarray:
    shape = tuple(
        size if size != DYNAMIC else rows if axis == 0 else dynamic_size for axis, size in enumerate(spec.shape)
    )
    if spec.dtype.kind == "O":
        words = [b"sample %d" % number for number in range(int(np.prod(shape)))]
        array = np.empty(len(words), object)
        array[:] = words
        return array.reshape(shape)
    if spec.dtype.kind in "biu":
        return random.integers(0, 2, shape).astype(spec.dtype)
    return random.standard_normal(shape).astype(spec.dtype)
