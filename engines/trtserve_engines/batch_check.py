"""Decides whether a model can be batched: by its signature and by running it, not by guessing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from trtserve_engines.engine import Engine, ExecutionContext
from trtserve_engines.errors import DeviceLostError, ExecutionError, SignatureError
from trtserve_engines.shape_ranges import example_inputs
from trtserve_engines.signature import DYNAMIC, Signature

_ROWS = 3


# The order of additions changes with the batch size, and with it the last digits. A GPU also takes other kernels then,
# which may multiply in TensorFloat-32 or, inside the graph, in FP16.
_TOLERANCE = {2: 2e-2, 4: 1e-3, 8: 1e-6}
_GPU_TOLERANCE = 2e-2


class Batchability(NamedTuple):
    """Whether rows of different requests may share a run, and why."""

    batched: bool
    reason: str


def check_batchable(engine: Engine) -> Batchability:
    """Runs rows one by one and together; they must give the same numbers. Takes a few runs of the model."""
    signature = engine.signature
    if not signature.first_dimension_is_dynamic():
        return Batchability(False, _static_reason(signature))
    rows = min(_ROWS, engine.max_rows or _ROWS)
    if rows == 1:
        return Batchability(False, "the engine takes one row at a time")
    context = engine.create_context(batched=False)
    try:
        return _self_test(context, engine, rows)
    finally:
        context.close()


def _static_reason(signature: Signature) -> str:
    fixed = [spec.name for spec in signature.inputs + signature.outputs if not spec.shape or spec.shape[0] != DYNAMIC]
    if not fixed:
        return "the model has no inputs or outputs"
    return f"the first dimension of {', '.join(map(repr, fixed))} is fixed, so it cannot be a batch dimension"


def _self_test(context: ExecutionContext, engine: Engine, rows: int) -> Batchability:
    failure = ""
    for inputs in example_inputs(engine.signature, engine.shape_ranges, rows):
        try:
            return _compare(context, inputs, rows, on_gpu=engine.device != "cpu")
        except DeviceLostError:
            raise
        except (ExecutionError, SignatureError) as error:
            failure = failure or str(error)
    return Batchability(False, f"the self-test could not run the model with {rows} rows: {failure}")


def _compare(context: ExecutionContext, inputs: Mapping[str, np.ndarray], rows: int, *, on_gpu: bool) -> Batchability:
    together = context.run([inputs]).outputs
    for name, output in together.items():
        if output.ndim == 0 or output.shape[0] != rows:
            return Batchability(False, f"{rows} rows in gave output {name!r} the shape {list(output.shape)}")
    for row in range(rows):
        alone = context.run([{name: array[row : row + 1] for name, array in inputs.items()}]).outputs
        for name, output in together.items():
            if not _same(alone[name], output[row : row + 1], on_gpu=on_gpu):
                return Batchability(False, f"a row of output {name!r} changes with the rows beside it")
    return Batchability(True, f"{rows} rows one by one and together gave the same numbers")


def _same(one: np.ndarray, other: np.ndarray, *, on_gpu: bool) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "biuOSU":
        return bool(np.array_equal(one, other))
    tolerance = _GPU_TOLERANCE if on_gpu else _TOLERANCE.get(one.dtype.itemsize, max(_TOLERANCE.values()))
    one, other = one.astype(np.float64), other.astype(np.float64)
    scale = float(np.max(np.abs(other), initial=0.0, where=np.isfinite(other)))
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
