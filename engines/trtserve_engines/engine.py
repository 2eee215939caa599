"""What every backend offers: an Engine, loaded once and shared, and ExecutionContexts, one per thread, that run it.

The words are TensorRT's. For ONNX Runtime the engine is the session and a context holds the staging arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from trtserve_engines.signature import Signature
from trtserve_engines.sources import TensorSource

Arrays = Mapping[str, np.ndarray | TensorSource]
"""Inputs by their names. `staging` copies either kind to where an engine wants it."""
Shape = tuple[int, ...]
ShapeRanges = Mapping[str, tuple[Shape, Shape, Shape]]
"""By input: smallest, usual, largest."""


class BatchResult(NamedTuple):
    """What one run gave: the outputs of all its rows, owned by the receiver, and where the time went, in ns."""

    outputs: dict[str, np.ndarray]
    input_ns: int
    compute_ns: int
    output_ns: int


class ExecutionContext(Protocol):
    """Runs batches, one at a time, on the thread that made it; one of an engine on the CPU, on any thread."""

    def run(self, parts: Sequence[Arrays], threads: int = 0) -> BatchResult:
        """Runs the rows of all `parts` as one batch, in their order; raises ExecutionError.

        The parts fit the signature (checked before), are read-only and need to live only until this returns.
        `threads` is one of the engine's `thread_choices`, or 0 for what the engine thinks best for a lone run.
        """
        ...

    def close(self) -> None:
        """Gives back what the context holds. Called once, on the thread that made it."""
        ...


class PipelinedContext(ExecutionContext, Protocol):
    """A context that can have several batches on their way: while one computes, the next is copied to the device.

    `launch` may be called `depth` times before the first `collect`; batches are collected in the order of their
    launch. `run` is a launch and its collect. All of it on the thread that made the context.
    """

    depth: int

    def launch(self, parts: Sequence[Arrays]) -> Any:
        """Starts a batch and returns at once with what `collect` takes; raises as `run` does.

        The parts need to live only until this returns.
        """
        ...

    def collect(self, pending: Any) -> BatchResult:
        """Waits for a batch that was launched; raises ExecutionError where it failed."""
        ...


class Engine(Protocol):
    """A model loaded on a device. May be shared by threads; the contexts that it makes may not."""

    @property
    def signature(self) -> Signature:
        """Names, types and shapes of what the model takes and gives."""
        ...

    @property
    def backend(self) -> str:
        """The runtime that executes the model, for example "onnxruntime"."""
        ...

    @property
    def device(self) -> str:
        """Where it executes, for example "cpu" or "gpu:0"."""
        ...

    @property
    def max_rows(self) -> int | None:
        """The largest number of rows in a batch; None where the engine sets no limit."""
        ...

    @property
    def shape_ranges(self) -> Sequence[ShapeRanges]:
        """What the engine was made for: the shapes of each input, or its values where it is read as a shape, from the
        smallest over the usual to the largest; several alternatives, or none where every shape of the signature goes.
        """
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What else there is to say of it, for those who ask: names and texts."""
        ...

    @property
    def thread_choices(self) -> tuple[int, ...]:
        """Numbers of threads that a run may be given, rising; empty where that is not for others to choose."""
        ...

    def create_context(self, *, batched: bool) -> ExecutionContext:
        """A new context for the calling thread.

        `batched` says that the first dimension of every input and output counts rows, so that a run may take several
        parts. Without it a run takes exactly one part, as it is.
        """
        ...

    def close(self) -> None:
        """Gives the model's memory back. Called once, after every context is closed."""
        ...
