"""An engine in other shapes: what it says of itself, and that each array arrives and leaves in the right form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trtserve_engines.engine import Arrays, BatchResult
from trtserve_engines.errors import ExecutionError
from trtserve_engines.reshaped_engine import Reshape, ReshapedEngine
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_engines.signature import Signature, TensorSpec
from trtserve_engines.sources import Located, PlacedArrays, located

FLOAT = np.dtype(np.float32)


def way(outer: tuple[int, ...], inner: tuple[int, ...], name: str = "x") -> Reshape:
    return Reshape(TensorSpec(name, FLOAT, outer), TensorSpec(name, FLOAT, inner))


@pytest.mark.parametrize(
    ("outer", "inner", "fits"),
    [
        ((-1, 1), (-1,), True),
        ((-1, 4), (-1, 2, 2), True),
        ((-1, -1, 6), (-1, -1, 2, 3), True),
        ((-1, 2, -1, 3), (-1, 1, 2, -1, 3), True),
        ((4,), (2, 2), True),
        ((1,), (), True),
        ((-1, 4), (-1, 5), False),
        ((-1, 4), (-1, -1), False),
        ((-1, 2, -1), (-1, -1, 2), False),
        ((-1, -1), (-1, -1, -1), False),
    ],
)
def test_shapes_of_as_many_elements_fit(outer: tuple[int, ...], inner: tuple[int, ...], fits: bool) -> None:
    assert way(outer, inner).fits == fits == way(inner, outer).fits


def test_dynamic_sizes_pass_in_their_order() -> None:
    chosen = way((-1, -1, 6), (-1, -1, 2, 3))
    assert chosen.inwards((5, 7, 6)) == (5, 7, 2, 3)
    assert chosen.outwards((5, 7, 2, 3)) == (5, 7, 6)


class Pipelined:
    """As much of a pipelined context as a reshaped one asks."""

    depth = 2

    def launch(self, parts: Any) -> Any:
        return parts

    def collect(self, pending: Any) -> BatchResult:
        return BatchResult({"y": np.concatenate([part["x"] for part in pending])}, 0, 0, 0)


class Source:
    """A tensor that is somewhere else."""

    dtype = FLOAT
    shape = (1, 4)

    def __len__(self) -> int:
        return 1

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.arange(4, dtype=FLOAT).reshape(1, 4)

    def copy_to(self, target: np.ndarray) -> None:
        assert target.shape == self.shape
        target[:] = np.asarray(self)

    def in_place(self) -> Located | None:
        return located(np.asarray(self))


def square(inputs: Arrays) -> dict[str, np.ndarray]:
    array = np.asarray(inputs["x"])
    assert array.shape[1:] == (2, 2)
    return {"y": array @ np.float32([[0, 1], [1, 0]])}


SQUARE = Signature((TensorSpec("x", FLOAT, (-1, 2, 2)),), (TensorSpec("y", FLOAT, (-1, 2, 2)),))
FLAT = {"x": way((-1, 4), (-1, 2, 2))}
FLAT_OUT = {"y": way((-1, 4), (-1, 2, 2), "y")}


def engine(compute: Any = square) -> ReshapedEngine:
    return ReshapedEngine(ScriptedEngine(SQUARE, compute), FLAT, FLAT_OUT)


def test_it_is_seen_in_the_outer_shapes() -> None:
    assert engine().signature == Signature((TensorSpec("x", FLOAT, (-1, 4)),), (TensorSpec("y", FLOAT, (-1, 4)),))
    inner = ScriptedEngine(SQUARE)
    inner.shape_ranges = [{"x": ((1, 2, 2), (2, 2, 2), (8, 2, 2)), "n": ((1,), (2,), (3,))}]
    assert ReshapedEngine(inner, FLAT, FLAT_OUT).shape_ranges == [
        {"x": ((1, 4), (2, 4), (8, 4)), "n": ((1,), (2,), (3,))}
    ]


def test_arrays_of_many_parts_go_in_and_out() -> None:
    context = engine().create_context(batched=True)
    rows = np.arange(12, dtype=FLOAT).reshape(3, 4)
    result = context.run([{"x": rows[:2]}, {"x": rows[2:]}])
    np.testing.assert_array_equal(result.outputs["y"], rows[:, [1, 0, 3, 2]])
    context.close()


def test_what_lies_outside_is_read_into_the_inner_shape() -> None:
    context = engine().create_context(batched=True)
    np.testing.assert_array_equal(context.run([{"x": Source()}]).outputs["y"], [[1, 0, 3, 2]])
    (seen,) = context._inwards([{"x": Source()}])  # type: ignore[attr-defined]
    target = np.zeros((1, 2, 2), FLOAT)
    seen["x"].copy_to(target)
    np.testing.assert_array_equal(seen["x"].in_place().array, target)
    assert (target.tolist(), len(seen["x"]), seen["x"].shape) == ([[[0, 1], [2, 3]]], 1, (1, 2, 2))


def test_places_for_outputs_are_passed_on() -> None:
    given = PlacedArrays({"x": np.zeros((1, 4), FLOAT)})
    given.places = {"y": object()}  # type: ignore[dict-item]
    (seen,) = engine().create_context(batched=True)._inwards([given])  # type: ignore[attr-defined]
    assert seen.places is given.places and seen["x"].shape == (1, 2, 2)


def test_a_pipeline_stays_one() -> None:
    inner = ScriptedEngine(SQUARE)
    inner.create_context = lambda *, batched: Pipelined()  # type: ignore[assignment,method-assign,misc]
    context: Any = ReshapedEngine(inner, FLAT, FLAT_OUT).create_context(batched=True)
    rows = np.arange(8, dtype=FLOAT).reshape(2, 4)
    assert context.depth == 2
    np.testing.assert_array_equal(context.collect(context.launch([{"x": rows}])).outputs["y"], rows)


def test_an_output_of_another_shape_fails_the_run() -> None:
    context = engine(lambda inputs: {"y": np.zeros((1, 2, 3), FLOAT)}).create_context(batched=True)
    with pytest.raises(ExecutionError, match=r"'y' with shape \[1, 2, 3\], \[-1, 2, 2\] is configured"):
        context.run([{"x": np.zeros((1, 4), FLOAT)}])


def test_closing_closes_the_engine() -> None:
    inner = ScriptedEngine(SQUARE)
    ReshapedEngine(inner, FLAT, FLAT_OUT).close()
    assert inner.closed
