"""From how many rows on a larger batch gains nothing: measured when a model is loaded, where that can be told.

On a CPU the rows of many models, convolutional ones above all, are computed one after another.
"""

from __future__ import annotations

import math
import time

from trtserve_engines.engine import Engine, ExecutionContext
from trtserve_engines.errors import ExecutionError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.samples import sample_inputs
from trtserve_engines.signature import DYNAMIC

_ROWS = 8
"""A batch of so many rows, or the largest, is held against one row."""

_REPEATS = 3
"""Runs of each, of which the quickest counts."""

_HANDOVER_S = 0.0002
"""What a batch costs beside its run: to be cut, to change threads twice, to be counted."""

_LOSS = 0.01
"""The part of a batch's time that may go on what does not grow with its rows."""


def rows_that_are_enough(engine: Engine, model: OnnxModel, max_batch_size: int) -> int:
    """The size from which on larger batches gain nothing; 0 where they gain up to the largest, or it is not known.

    It is known of what runs on a CPU and takes as long for any rows as for others.
    """
    rows = min(_ROWS, max_batch_size)
    if rows < 2 or engine.device != "cpu" or not _rows_are_alike(model):
        return 0
    context = engine.create_context(batched=True)
    try:
        one_s, several_s = (_run_s(context, engine, size) for size in (1, rows))
    except ExecutionError:
        return 0  # made-up inputs do not fit; the warm-up says so
    finally:
        context.close()
    enough = enough_from_times(one_s, several_s, rows)
    return int(enough) if enough < max_batch_size else 0


def _rows_are_alike(model: OnnxModel) -> bool:
    """Whether nothing but their number can make a run of rows longer."""
    tensors = (*model.signature.inputs, *model.signature.outputs)
    fixed = all(spec.dtype.kind != "O" and DYNAMIC not in spec.shape[1:] for spec in tensors)
    return fixed and not model.has_control_flow


def enough_from_times(one_s: float, several_s: float, rows: int) -> float:
    """The rows over which the fixed cost of a batch is spread thinly enough; infinity where rows cost nothing.

    One row takes `one_s`, so many `rows` together take `several_s`.
    """
    row_s = (several_s - one_s) / (rows - 1)
    if row_s <= 0:
        return math.inf
    fixed_s = max(0.0, one_s - row_s) + _HANDOVER_S
    return math.ceil(fixed_s / (_LOSS * row_s))


def _run_s(context: ExecutionContext, engine: Engine, rows: int) -> float:
    """CPU time of this thread, which does not grow with what else the machine does, where a run may be on one."""
    inputs = sample_inputs(engine.signature, rows=rows)
    threads = engine.thread_choices[0] if engine.thread_choices else 0
    times = []
    for _ in range(_REPEATS):
        start = time.thread_time()
        context.run([inputs], threads)
        times.append(time.thread_time() - start)
    return min(times)
