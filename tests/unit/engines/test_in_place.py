"""A lone request whose tensors lie elsewhere is read and written there by ONNX Runtime; copied where that cannot be."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.models import make_models
from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import ExecutionContext
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.onnxruntime_engine import OnnxRuntimeEngine
from trtserve_engines.sources import Located, PlacedArrays, located

FLOAT32 = np.dtype(np.float32)


def memory(size: int, shift: int = 0) -> np.ndarray:
    """Bytes at an address that is `shift` above a multiple of 64."""
    room = np.zeros(size + 128, np.uint8)
    start = -room.ctypes.data % 64 + shift
    return room[start : start + size]


class Source:
    """A TensorSource over an array, which counts how it is asked for."""

    def __init__(self, array: np.ndarray, shift: int = 0) -> None:
        self.array = memory(array.nbytes, shift).view(array.dtype).reshape(array.shape)
        self.array[...] = array
        self.dtype, self.shape = array.dtype, array.shape
        self.copies = 0

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self.copies += 1
        return self.array.copy()

    def copy_to(self, target: np.ndarray) -> None:
        self.copies += 1
        np.copyto(target, self.array)

    def in_place(self) -> Located | None:
        return located(self.array)


class Place:
    """A TensorPlace with room for `size` bytes."""

    def __init__(self, size: int, shift: int = 0) -> None:
        self.memory = memory(size, shift)

    def array(self, dtype: np.dtype, shape: tuple[int, ...]) -> Located | None:
        size = int(np.prod(shape)) * dtype.itemsize
        return located(self.memory[:size].view(dtype).reshape(shape)) if size <= len(self.memory) else None


def placed(arrays: dict[str, Any], **places: Place) -> PlacedArrays:
    part = PlacedArrays(arrays)
    part.places = places
    return part


def opened(proto: onnx.ModelProto, folder: Path, *, batched: bool = True) -> ExecutionContext:
    model = read_onnx_model(make_models.save(proto, folder / "m.onnx"))
    return OnnxRuntimeEngine.load(model, OnnxRuntimeOptions()).create_context(batched=batched)


def rows(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, np.float32)[:, None], 4, axis=1)


def test_a_lone_request_is_read_and_written_where_it_lies(tmp_path: Path) -> None:
    context = opened(make_models.scale(2.0), tmp_path)
    source, place = Source(rows(1, 2)), Place(100)
    for factor in (1, 5):  # the second goes by the binding of the first
        source.array[...] = rows(1, 2) * factor
        outputs = context.run([placed({"x": source}, y=place)]).outputs
        assert outputs["y"].ctypes.data == place.memory.ctypes.data
        np.testing.assert_array_equal(outputs["y"], rows(2, 4) * factor)
    assert source.copies == 0


def test_tensors_elsewhere_and_here_take_turns(tmp_path: Path) -> None:
    context = opened(make_models.add(), tmp_path)
    a, place = Source(rows(1)), Place(16)
    for number in range(3):
        here = placed({"a": a, "b": rows(number)}, total=place)
        np.testing.assert_array_equal(context.run([here]).outputs["total"], rows(1 + number))
        np.testing.assert_array_equal(place.memory.view(np.float32), rows(1 + number)[0])
        plain = {"a": rows(7), "b": rows(number)}
        np.testing.assert_array_equal(context.run([plain]).outputs["total"], rows(7 + number))
        other = placed({"a": Source(rows(3)), "b": Source(rows(number))})
        result = context.run([other]).outputs["total"]
        np.testing.assert_array_equal(result, rows(3 + number))
        np.testing.assert_array_equal(place.memory.view(np.float32), rows(1 + number)[0])
    assert a.copies == 0


def test_one_place_for_another_is_no_mistake_of_the_binding(tmp_path: Path) -> None:
    context = opened(make_models.scale(2.0), tmp_path)
    for number in range(300):  # more than are remembered
        source, place = Source(rows(number)), Place(16)
        context.run([placed({"x": source}, y=place)])
        np.testing.assert_array_equal(place.memory.view(np.float32), rows(2 * number)[0])


def test_requests_that_share_a_batch_are_copied(tmp_path: Path) -> None:
    context = opened(make_models.scale(2.0), tmp_path)
    one, other, place = Source(rows(1)), Source(rows(2, 3)), Place(100)
    outputs = context.run([placed({"x": one}, y=place), placed({"x": other})]).outputs
    np.testing.assert_array_equal(outputs["y"], rows(2, 4, 6))
    assert (one.copies, other.copies) == (1, 1)
    assert not place.memory.any()


@pytest.mark.parametrize("shift", [1, 4, 8, 16])
def test_what_is_not_aligned_is_copied(tmp_path: Path, shift: int) -> None:
    context = opened(make_models.scale(2.0), tmp_path)
    source, place = Source(rows(1), shift), Place(16, shift)
    outputs = context.run([placed({"x": source}, y=place)]).outputs
    np.testing.assert_array_equal(outputs["y"], rows(2))
    in_place = shift % 16 == 0
    assert source.copies == (not in_place)
    assert np.shares_memory(outputs["y"], place.memory) == in_place


def test_what_is_used_as_a_place_is_copied(tmp_path: Path) -> None:
    context = opened(make_models.gather(), tmp_path)
    source = Source(np.array([3, 1]))
    np.testing.assert_array_equal(context.run([placed({"index": source})]).outputs["y"], [3, 1])
    assert source.copies == 1


def test_an_output_without_room_or_of_unknown_shape_is_not_placed(tmp_path: Path) -> None:
    place = Place(15)
    context = opened(make_models.scale(2.0), tmp_path)
    np.testing.assert_array_equal(context.run([placed({"x": rows(1)}, y=place)]).outputs["y"], rows(2))
    context = opened(make_models.identity(TensorProto.FLOAT, ("n", "m")), tmp_path, batched=False)
    np.testing.assert_array_equal(context.run([placed({"x": rows(1)}, y=Place(100))]).outputs["y"], rows(1))
    assert not place.memory.any()


def test_half_precision_lies_in_place_too(tmp_path: Path) -> None:
    for elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
        proto = make_models.identity(elem_type, ("batch", 4))
        context = opened(proto, tmp_path)
        source = Source(rows(1.5).astype(read_onnx_model(tmp_path / "m.onnx").signature.inputs[0].dtype))
        place = Place(100)
        outputs = context.run([placed({"x": source}, y=place)]).outputs
        assert np.shares_memory(outputs["y"], place.memory)
        np.testing.assert_array_equal(outputs["y"], source.array)
        assert source.copies == 0


def test_nothing_that_lies_elsewhere_is_kept_after_the_run(tmp_path: Path) -> None:
    context = opened(make_models.scale(2.0), tmp_path)
    source, place = Source(rows(1)), Place(16)
    context.run([placed({"x": source}, y=place)])
    lives = [weakref.ref(array) for array in (source.array, place.memory)]
    del source, place
    assert [life() for life in lives] == [None, None]
