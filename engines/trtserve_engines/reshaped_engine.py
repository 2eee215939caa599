"""An engine whose tensors are seen in other shapes than the graph has them in: as many elements, other dimensions.

No element is copied for it: arrays change their shape on the way in and out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from trtserve_engines.engine import (
    Arrays,
    BatchResult,
    Engine,
    ExecutionContext,
    PipelinedContext,
    Shape,
    ShapeRanges,
)
from trtserve_engines.errors import ExecutionError
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec, shapes_agree
from trtserve_engines.sources import Located, PlacedArrays, TensorSource


@dataclass(frozen=True)
class Reshape:
    """A tensor that is `outer` to those who ask and `inner` to the graph; sizes that are DYNAMIC pass in their order.

    Both have as many DYNAMIC sizes, and as many elements between them: `fits` says so.
    """

    outer: TensorSpec
    inner: TensorSpec

    @property
    def fits(self) -> bool:
        """Whether every tensor of the one shape has exactly one form in the other."""
        return _products(self.outer.shape) == _products(self.inner.shape)

    def inwards(self, shape: Sequence[int]) -> Shape:
        """The graph's shape for one of those who ask."""
        return _mapped(shape, self.outer.shape, self.inner.shape)

    def outwards(self, shape: Sequence[int]) -> Shape:
        """The other way round."""
        return _mapped(shape, self.inner.shape, self.outer.shape)


class ReshapedEngine:
    """`engine` in the shapes of `inputs` and `outputs`, by name; it is closed with this."""

    def __init__(self, engine: Engine, inputs: Mapping[str, Reshape], outputs: Mapping[str, Reshape]) -> None:
        self._engine = engine
        self._inputs = inputs
        self._outputs = outputs
        self.signature = Signature(
            tuple(_outer(spec, inputs) for spec in engine.signature.inputs),
            tuple(_outer(spec, outputs) for spec in engine.signature.outputs),
        )
        self.backend = engine.backend
        self.device = engine.device
        self.max_rows = engine.max_rows
        self.facts = engine.facts
        self.thread_choices = engine.thread_choices
        self.shape_ranges = [_outer_ranges(alternative, inputs) for alternative in engine.shape_ranges]

    def create_context(self, *, batched: bool) -> ExecutionContext:
        """See Engine; the context pipelines where the engine's does."""
        context = self._engine.create_context(batched=batched)
        if getattr(context, "depth", 1) > 1:
            return ReshapedPipeline(cast(PipelinedContext, context), self._inputs, self._outputs)
        return ReshapedContext(context, self._inputs, self._outputs)

    def close(self) -> None:
        """See Engine."""
        self._engine.close()


class ReshapedContext:
    """Runs `context` on arrays in other shapes."""

    def __init__(
        self, context: ExecutionContext, inputs: Mapping[str, Reshape], outputs: Mapping[str, Reshape]
    ) -> None:
        self._context = context
        self._inputs = inputs
        self._outputs = outputs

    def run(self, parts: Sequence[Arrays], threads: int = 0) -> BatchResult:
        """See ExecutionContext."""
        return self._outwards(self._context.run(self._inwards(parts), threads))

    def close(self) -> None:
        """See ExecutionContext."""
        self._context.close()

    def _inwards(self, parts: Sequence[Arrays]) -> list[Arrays]:
        return [self._inward(part) for part in parts]

    def _inward(self, part: Arrays) -> Arrays:
        arrays = {**part, **{name: _inner(part[name], way) for name, way in self._inputs.items()}}
        if not isinstance(part, PlacedArrays):
            return arrays
        placed = PlacedArrays(arrays)
        placed.places = part.places  # one takes whatever has its size
        return placed

    def _outwards(self, result: BatchResult) -> BatchResult:
        outputs = dict(result.outputs)
        for name, way in self._outputs.items():
            array = outputs[name]
            if not shapes_agree(array.shape, way.inner.shape):
                raise ExecutionError(
                    f"the model gave output {name!r} with shape {list(array.shape)}, {list(way.inner.shape)} is"
                    " configured as what it is reshaped from"
                )
            outputs[name] = array.reshape(way.outwards(array.shape))
        return result._replace(outputs=outputs)


class ReshapedPipeline(ReshapedContext):
    """The same for a context that can have several batches on their way."""

    def __init__(
        self, context: PipelinedContext, inputs: Mapping[str, Reshape], outputs: Mapping[str, Reshape]
    ) -> None:
        super().__init__(context, inputs, outputs)
        self._pipeline = context
        self.depth = context.depth

    def launch(self, parts: Sequence[Arrays]) -> Any:
        """See PipelinedContext."""
        return self._pipeline.launch(self._inwards(parts))

    def collect(self, pending: Any) -> BatchResult:
        """See PipelinedContext."""
        return self._outwards(self._pipeline.collect(pending))


class _ReshapedSource:
    """A tensor outside this process in another shape; see TensorSource."""

    def __init__(self, source: TensorSource, shape: Shape) -> None:
        self._source = source
        self.dtype = source.dtype
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.asarray(self._source).reshape(self.shape)
        return array if dtype is None else array.astype(dtype)

    def copy_to(self, target: np.ndarray) -> None:
        self._source.copy_to(target.reshape(self._source.shape))

    def in_place(self) -> Located | None:
        there = self._source.in_place()
        return None if there is None else there._replace(array=there.array.reshape(self.shape))


def _inner(tensor: np.ndarray | TensorSource, way: Reshape) -> np.ndarray | TensorSource:
    shape = way.inwards(tensor.shape)
    return tensor.reshape(shape) if isinstance(tensor, np.ndarray) else _ReshapedSource(tensor, shape)


def _outer(spec: TensorSpec, ways: Mapping[str, Reshape]) -> TensorSpec:
    return ways[spec.name].outer if spec.name in ways else spec


def _outer_ranges(alternative: ShapeRanges, ways: Mapping[str, Reshape]) -> ShapeRanges:
    return {
        name: tuple(ways[name].outwards(shape) for shape in shapes) if name in ways else shapes  # type: ignore[misc]
        for name, shapes in alternative.items()
    }


def _mapped(shape: Sequence[int], source: Shape, target: Shape) -> Shape:
    sizes = iter([size for size, known in zip(shape, source, strict=True) if known == DYNAMIC])
    return tuple(next(sizes) if known == DYNAMIC else known for known in target)


def _products(shape: Shape) -> list[int]:
    """How many elements lie before, between and behind the DYNAMIC sizes."""
    products = [1]
    for size in shape:
        if size == DYNAMIC:
            products.append(1)
        else:
            products[-1] *= size
    return products
