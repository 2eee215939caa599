"""Requests without a batch dimension for models that have one, and the other way round, where only one reading fits.

The answer has the form of the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trtserve_engines.signature import DYNAMIC
from trtserve_server.models.model import Model


def extra_dimensions(model: Model, inputs: Mapping[str, np.ndarray]) -> int:
    """How many dimensions every input has in front of the model's: -1 or 1 where that can only be the batch's, else 0.

    -1: the model has a batch dimension, and no input has it. 1: the model has none, and every input comes as a batch
    of one row.
    """
    specs = model.signature.input_by_name
    if inputs.keys() != specs.keys() or not inputs:
        return 0
    differences = {len(array.shape) - len(specs[name].shape) for name, array in inputs.items()}
    for extra, possible in ((-1, _has_batch_dimension(model)), (1, not model.max_batch_size)):
        if possible and differences == {extra}:
            return extra if all(_fits(array.shape, specs[name].shape, extra) for name, array in inputs.items()) else 0
    return 0


def as_model(shape: Sequence[int], extra: int) -> tuple[int, ...]:
    """An input's shape as the model wants it."""
    return (1, *shape) if extra < 0 else tuple(shape[extra:])


def as_request(outputs: Mapping[str, np.ndarray], extra: int) -> Mapping[str, np.ndarray]:
    """The outputs in the form of the request."""
    if not extra:
        return outputs
    return {name: array.reshape(array.shape[1:] if extra < 0 else (1, *array.shape)) for name, array in outputs.items()}


def _fits(shape: Sequence[int], wanted: Sequence[int], extra: int) -> bool:
    if extra > 0 and shape[0] != 1:
        return False
    return all(size == want or want == DYNAMIC for size, want in zip(as_model(shape, extra), wanted, strict=True))


def _has_batch_dimension(model: Model) -> bool:
    """Whether the first dimension of everything counts rows: of a model that is never batched, the only row."""
    tensors = (*model.signature.inputs, *model.signature.outputs)
    return model.max_batch_size > 0 or all(spec.shape and spec.shape[0] == 1 for spec in tensors)
