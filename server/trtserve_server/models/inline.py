"""Whether a model's runs are so quick that they need no thread of their own: handing them over would take longer."""

from __future__ import annotations

import timeit
from functools import partial

from trtserve_engines.engine import Engine
from trtserve_engines.errors import ExecutionError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.samples import sample_inputs
from trtserve_engines.signature import DYNAMIC


def is_quick(engine: Engine, model: OnnxModel, max_batch_size: int, limit_s: float) -> bool:
    """Whether every run is sure to take less than `limit_s`: measured, and only where no input can change it."""
    tensors = (*model.signature.inputs, *model.signature.outputs)
    fixed = all(DYNAMIC not in (spec.shape[1:] if max_batch_size else spec.shape) for spec in tensors)
    if engine.device != "cpu" or not fixed or model.has_control_flow or limit_s == 0:
        return False
    context = engine.create_context(batched=max_batch_size > 0)
    try:
        for rows in (1, max(1, max_batch_size)):
            inputs = sample_inputs(engine.signature, rows=rows)
            if min(timeit.repeat(partial(context.run, [inputs]), number=1, repeat=3)) >= limit_s:
                return False
        return True
    except ExecutionError:
        return False  # made-up inputs do not fit; the warm-up says so
    finally:
        context.close()
