"""An execution context whose outputs are checked: that they are what the model promises, and now and then for NaN.

A model that breaks its word fails the batch with a clear reason. NaN is the model's own affair and is answered, but
counted and logged once. Searching costs a pass over the outputs, on the instance's thread: hence only now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from trtserve_engines.engine import Arrays, BatchResult, ExecutionContext, PipelinedContext
from trtserve_engines.errors import ExecutionError
from trtserve_engines.signature import DYNAMIC, TensorSpec
from trtserve_server.statistics import NanCount

log = logging.getLogger(__name__)

_MAX_SHAPES = 256
"""Shapes of an output that are remembered as right; others are compared with what is declared each time."""


class CheckedContext:
    """Runs `context` and checks what it gives; every `nan_interval`th batch is searched for NaN, from the first on."""

    def __init__(
        self, name: str, context: ExecutionContext, outputs: Sequence[TensorSpec], nan_interval: int, nan: NanCount
    ) -> None:
        self._name = name
        self._context = context
        self._outputs = [(spec, set[tuple[int, ...]]()) for spec in outputs]  # with shapes known to be right
        self._nan_interval = nan_interval
        self._nan = nan
        self._batches = 0

    def run(self, parts: Sequence[Arrays], threads: int = 0) -> BatchResult:
        """See ExecutionContext. Raises ExecutionError for outputs that are not the model's."""
        return self._checked(self._context.run(parts, threads))

    def close(self) -> None:
        """See ExecutionContext."""
        self._context.close()

    def _checked(self, result: BatchResult) -> BatchResult:
        for spec, right in self._outputs:
            array = result.outputs.get(spec.name)
            if array is None or array.dtype is not spec.dtype or array.shape not in right:
                self._check(spec, right, array)
        if self._nan_interval and self._batches % self._nan_interval == 0:
            self._search(result.outputs)
        self._batches += 1
        return result

    def _check(self, spec: TensorSpec, right: set[tuple[int, ...]], array: np.ndarray | None) -> None:
        if problem := _problem(spec, array):
            raise ExecutionError(problem)
        if array is not None and len(right) < _MAX_SHAPES:
            right.add(array.shape)

    def _search(self, outputs: Mapping[str, np.ndarray]) -> None:
        names = [name for name, array in outputs.items() if has_nan(array)]
        if self._nan.add(bool(names)):
            log.warning(
                "%s: output %s holds NaN; that is answered, and counted by trtserve_nan_batches_total",
                self._name,
                ", ".join(map(repr, names)),
            )


class CheckedPipeline(CheckedContext):
    """The same for a context that can have several batches on their way."""

    def __init__(
        self, name: str, context: PipelinedContext, outputs: Sequence[TensorSpec], nan_interval: int, nan: NanCount
    ) -> None:
        super().__init__(name, context, outputs, nan_interval, nan)
        self._pipeline = context
        self.depth = context.depth

    def launch(self, parts: Sequence[Arrays]) -> Any:
        """See PipelinedContext."""
        return self._pipeline.launch(parts)

    def collect(self, pending: Any) -> BatchResult:
        """See PipelinedContext. Raises ExecutionError for outputs that are not the model's."""
        return self._checked(self._pipeline.collect(pending))


def checked(
    name: str, context: ExecutionContext, outputs: Sequence[TensorSpec], nan_interval: int, nan: NanCount
) -> CheckedContext:
    """The context with its checks, able to pipeline where the context is."""
    if getattr(context, "depth", 1) > 1:
        return CheckedPipeline(name, cast(PipelinedContext, context), outputs, nan_interval, nan)
    return CheckedContext(name, context, outputs, nan_interval, nan)


def has_nan(array: np.ndarray) -> bool:
    """Whether an array of any type holds NaN."""
    if array.dtype.kind == "f":
        # The least value is NaN where any is: one pass, and no array of truth values.
        return array.size > 0 and bool(np.isnan(array.min()))
    return array.dtype.name == "bfloat16" and bool(np.isnan(array).any())


def _problem(spec: TensorSpec, array: np.ndarray | None) -> str:
    if array is None:
        return f"the model gave no output {spec.name!r}"
    if array.dtype != spec.dtype and spec.dtype.kind != "O":
        return f"the model gave output {spec.name!r} as {array.dtype}, {spec.dtype} is declared"
    shape = array.shape
    if shape != spec.shape and (
        len(shape) != len(spec.shape)
        or any(size != wanted != DYNAMIC for size, wanted in zip(shape, spec.shape, strict=True))
    ):
        return f"the model gave output {spec.name!r} with shape {list(shape)}, {list(spec.shape)} is declared"
    return ""
