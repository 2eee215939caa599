"""Reused memory: alignment, growth, gathering of rows."""

from typing import Any

import numpy as np
import pytest

from trtserve_engines.staging import ALIGNMENT, StagingBuffer, gather, gathered_shape, joined

FLOAT32 = np.dtype(np.float32)


def address(array):
    return array.ctypes.data


def unaligned(array):
    """The same elements at an address that is no multiple of their size, read-only."""
    return np.frombuffer(memoryview(b"\0" + array.tobytes())[1:], array.dtype).reshape(array.shape)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (1000,), (0,), (2, 0)], ids=str)
def test_arrays_are_aligned_and_of_the_asked_shape(shape):
    array, _ = StagingBuffer(FLOAT32).array(shape)
    assert array.shape == shape
    assert array.dtype == FLOAT32
    assert array.flags.c_contiguous
    assert array.size == 0 or address(array) % ALIGNMENT == 0


def test_arrays_share_one_memory_until_it_has_to_grow():
    buffer = StagingBuffer(FLOAT32)
    first, moved = buffer.array((4, 8))
    assert moved
    for shape in [(4, 8), (8, 4), (2, 8), (1,)]:
        array, moved = buffer.array(shape)
        assert (address(array), moved) == (address(first), False)
    larger, moved = buffer.array((5, 8))
    assert moved
    assert not np.shares_memory(larger, first)


def test_nothing_moves_for_an_array_without_elements():
    assert not StagingBuffer(FLOAT32).array((0, 7))[1]


def test_an_older_array_stays_valid_memory_when_the_buffer_grows():
    buffer = StagingBuffer(FLOAT32)
    old, _ = buffer.array((2,))
    old[:] = 7
    new, _ = buffer.array((1000,))
    new[:] = 9
    assert old.tolist() == [7, 7]


def rows(*values):
    return {"x": np.array(values, np.float32)}


def test_one_part_is_gathered_as_it_is():
    target = np.empty((2, 3), np.float32)
    gather(target, [{"x": np.arange(6, dtype=np.float32).reshape(2, 3)}], "x")
    assert target.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_scalar_is_gathered():
    target = np.empty((), np.float32)
    gather(target, [{"x": np.float32(5).reshape(())}], "x")
    assert target == 5


def test_parts_are_gathered_in_order_and_stay_as_they_are():
    parts = [rows(1, 2), rows(), rows(3), rows(4, 5, 6)]
    target = np.empty(gathered_shape(parts, "x"), np.float32)
    gather(target, parts, "x")
    assert target.tolist() == [1, 2, 3, 4, 5, 6]
    assert [part["x"].tolist() for part in parts] == [[1, 2], [], [3], [4, 5, 6]]


@pytest.mark.parametrize("count", [1, 2])
def test_read_only_and_unaligned_parts_are_gathered(count):
    part = {"x": unaligned(np.arange(6, dtype=np.float32).reshape(2, 3))}
    assert not part["x"].flags.aligned
    target = np.empty((2 * count, 3), np.float32)
    gather(target, [part] * count, "x")
    assert target.tolist() == [[0, 1, 2], [3, 4, 5]] * count


@pytest.mark.parametrize(
    ("shapes", "together"),
    [([(2, 3)], (2, 3)), ([()], ()), ([(2, 3), (1, 3)], (3, 3)), ([(0, 3), (2, 3), (5, 3)], (7, 3))],
    ids=str,
)
def test_rows_of_all_parts_count_together(shapes, together):
    assert gathered_shape([{"x": np.zeros(shape)} for shape in shapes], "x") == together


class Source:
    """A tensor that lies elsewhere and counts how often it is read."""

    def __init__(self, array: np.ndarray) -> None:
        self.dtype, self.shape = array.dtype, array.shape
        self.reads = 0
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self.reads += 1
        return self._array.copy()

    def copy_to(self, target: np.ndarray) -> None:
        self.reads += 1
        target[...] = self._array


def test_a_source_is_read_once_straight_into_its_rows() -> None:
    source, array = Source(np.full((2, 3), 7.0)), np.ones((1, 3))
    target = np.zeros((4, 3))
    parts = [{"x": array}, {"x": source}, {"x": array}]
    assert gathered_shape(parts, "x") == (4, 3)
    gather(target, parts, "x")
    assert target.tolist() == [[1] * 3, [7] * 3, [7] * 3, [1] * 3]
    gather(target[:2], [{"x": source}], "x")
    assert source.reads == 2


def test_parts_are_joined_where_there_is_no_staging() -> None:
    source, array = Source(np.full((2, 3), 7.0)), np.ones((1, 3))
    assert joined([{"x": array}], "x") is array
    assert joined([{"x": source}], "x").tolist() == [[7] * 3] * 2
    assert joined([{"x": array}, {"x": source}], "x").tolist() == [[1] * 3, [7] * 3, [7] * 3]
    assert source.reads == 2
