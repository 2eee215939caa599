"""Up to how many rows a model's runs are so quick that they need no thread: handing them over would take longer."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial

from trtserve_engines.engine import Engine
from trtserve_engines.errors import ExecutionError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.samples import sample_inputs
from trtserve_server.models.alike import rows_are_alike

_REPEATS = 5
"""Runs of each size, of which the quickest counts: what else the machine does makes none quicker."""


def quick_rows(engine: Engine, model: OnnxModel, max_batch_size: int, limit_s: float) -> int:
    """The rows up to which every run is sure to take less than `limit_s`; 0 where not even that of one row is.

    Measured on one thread, and only where no input can change it.
    """
    if engine.device != "cpu" or not rows_are_alike(model, batched=max_batch_size > 0) or limit_s == 0:
        return 0
    threads = engine.thread_choices[0] if engine.thread_choices else 0
    context = engine.create_context(batched=max_batch_size > 0)

    def run_s(rows: int) -> float:
        run = partial(context.run, [sample_inputs(engine.signature, rows=rows)], threads)
        return min(timeit.repeat(run, number=1, repeat=_REPEATS))

    try:
        return rows_within(limit_s, max(1, max_batch_size), run_s)
    except ExecutionError:
        return 0  # made-up inputs do not fit; the warm-up says so
    finally:
        context.close()


def rows_within(limit_s: float, most: int, run_s: Callable[[int], float]) -> int:
    """The largest number of rows, of 1, 2, 4 and so on up to `most`, before the first whose run takes `limit_s`."""
    quick = 0
    while quick < most:
        rows = min(most, max(1, 2 * quick))
        if run_s(rows) >= limit_s:
            break
        quick = rows
    return quick
