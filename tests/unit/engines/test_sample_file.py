"""Files of real inputs: how they are cut into samples, and what is said of files that do not fit."""

import numpy as np
import pytest

from trtserve_engines.errors import ModelFileError, SignatureError
from trtserve_engines.sample_file import read_samples
from trtserve_engines.signature import Signature, TensorSpec

FLOAT, INT64 = np.dtype(np.float32), np.dtype(np.int64)


def signature(**inputs):
    return Signature(tuple(TensorSpec(name, *spec) for name, spec in inputs.items()), ())


BATCHED = signature(x=(FLOAT, (-1, 4)))
FIXED = signature(x=(FLOAT, (2, 4)))
TWO = signature(x=(FLOAT, (-1, 4)), n=(INT64, (-1,)))
SCALAR = signature(x=(FLOAT, ()))


@pytest.fixture
def file(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "samples.npz", **arrays)
        return tmp_path / "samples.npz"

    return write


@pytest.mark.parametrize(
    ("model", "shape", "rows", "count", "sample_shape"),
    [
        (BATCHED, (6, 4), 1, 6, (1, 4)),
        (BATCHED, (6, 4), 4, 1, (4, 4)),
        (BATCHED, (6, 3, 4), 1, 6, (3, 4)),
        (FIXED, (6, 4), 1, 3, (2, 4)),
        (FIXED, (5, 4), 1, 2, (2, 4)),
        (FIXED, (3, 2, 4), 1, 3, (2, 4)),
        (SCALAR, (7,), 1, 7, ()),
    ],
)
def test_arrays_are_cut_into_samples(file, model, shape, rows, count, sample_shape):
    samples = read_samples(file(x=np.zeros(shape, np.float32)), model, rows=rows)
    assert len(samples) == count and samples[0]["x"].shape == sample_shape


def test_rows_stay_in_their_order(file):
    samples = read_samples(file(x=np.arange(8, dtype=np.float32).reshape(2, 4)), BATCHED)
    assert [sample["x"][0, 0] for sample in samples] == [0, 4]


@pytest.mark.parametrize(
    ("arrays", "model", "reason"),
    [
        ({"y": np.zeros((1, 4), np.float32)}, BATCHED, "has no array for input 'x'; it has 'y'"),
        ({"x": np.zeros((2, 4), np.float64)}, BATCHED, "datatype float64 given, float32 wanted"),
        ({"x": np.zeros((2, 5), np.float32)}, BATCHED, r"shape \[1, 5\] given"),
        ({"x": np.zeros(4, np.float32)}, BATCHED, r"has the shape \[4\]; wanted is \[-1, 4\] with more rows"),
        ({"x": np.zeros((0, 4), np.float32)}, BATCHED, r"holds no whole sample; wanted .* 'x' \(0\)"),
        ({"x": np.zeros((1, 4), np.float32)}, FIXED, r"holds no whole sample"),
        (
            {"x": np.zeros((2, 4), np.float32), "n": np.zeros(3, np.int64)},
            TWO,
            r"different numbers of samples: 'x' \(2\), 'n' \(3\)",
        ),
    ],
)
def test_arrays_that_do_not_fit_the_model_are_refused(file, arrays, model, reason):
    with pytest.raises(SignatureError, match=reason):
        read_samples(file(**arrays), model)


def test_a_file_that_is_none_is_one_line(tmp_path):
    with pytest.raises(ModelFileError, match="missing.npz cannot be read: No such file"):
        read_samples(tmp_path / "missing.npz", BATCHED)
    for content in (b"", b"text", b"PK\3\4 cut off"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ModelFileError, match="bad.npz cannot be read: .*numpy.savez"):
            read_samples(tmp_path / "bad.npz", BATCHED)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ModelFileError, match="is one array; wanted is an .npz file"):
        read_samples(tmp_path / "one.npy", BATCHED)


def test_pickled_objects_are_not_opened(tmp_path):
    np.savez(tmp_path / "objects.npz", x=np.array([object()], dtype=object))
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_samples(tmp_path / "objects.npz", BATCHED)
