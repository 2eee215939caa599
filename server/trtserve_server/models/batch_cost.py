"""What a batch costs beside its rows: measured when a model is loaded, where that can be told.

On a CPU that is little with many models, convolutional ones above all: their rows are computed one after another.
"""

from __future__ import annotations

import math
import time

from trtserve_engines.engine import Engine, ExecutionContext
from trtserve_engines.errors import ExecutionError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.samples import sample_inputs
from trtserve_server.models.alike import rows_are_alike

_ROWS = 8
"""A batch of so many rows, or the largest, is held against one row."""

_REPEATS = 3
"""Runs of each, of which the quickest counts."""

_HANDOVER_S = 0.0002
"""What a batch costs beside its run: to be cut, to change threads twice, to be counted."""


def fixed_rows_of(engine: Engine, model: OnnxModel, max_batch_size: int) -> float:
    """What does not grow with the rows of a batch, in rows; infinity where rows cost nothing, or it is not known.

    It is known of what runs on a CPU and takes as long for any rows as for others.
    """
    rows = min(_ROWS, max_batch_size)
    if rows < 2 or engine.device != "cpu" or not rows_are_alike(model, batched=True):
        return math.inf
    context = engine.create_context(batched=True)
    try:
        one_s, several_s = (_run_s(context, engine, size) for size in (1, rows))
    except ExecutionError:
        return math.inf  # made-up inputs do not fit; the warm-up says so
    finally:
        context.close()
    return fixed_rows_from_times(one_s, several_s, rows)


def fixed_rows_from_times(one_s: float, several_s: float, rows: int) -> float:
    """The same from the times of one row, and of so many `rows` together."""
    row_s = (several_s - one_s) / (rows - 1)
    if row_s <= 0:
        return math.inf
    return (max(0.0, one_s - row_s) + _HANDOVER_S) / row_s


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
