"""An engine that follows a script instead of a model: for tests of this project and of its users, without a model.

It shares no code with the real ones but passes the same suite.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trtserve_engines.engine import Arrays, BatchResult, ShapeRanges
from trtserve_engines.errors import ExecutionError
from trtserve_engines.signature import Signature

Inputs = Mapping[str, np.ndarray]
Compute = Callable[[Inputs], dict[str, np.ndarray]]


def echo(inputs: Inputs) -> dict[str, np.ndarray]:
    """Every input as an output of the same name."""
    return {name: array.copy() for name, array in inputs.items()}


class ScriptedEngine:
    """Answers each batch with `compute(inputs)`, `latency_s(rows)` seconds later.

    `failure(number)` is asked before batch `number`, from 0; the exception that it returns is raised as
    ExecutionError. `batches` holds the number of rows of every batch that was started, in order.
    """

    backend = "scripted"
    device = "cpu"
    shape_ranges: Sequence[ShapeRanges] = ()
    facts: Mapping[str, str] = {}
    thread_choices: tuple[int, ...] = ()

    def __init__(
        self,
        signature: Signature,
        compute: Compute = echo,
        *,
        latency_s: Callable[[int], float] = lambda rows: 0.0,
        failure: Callable[[int], Exception | None] = lambda number: None,
        max_rows: int | None = None,
    ) -> None:
        self.signature = signature
        self.compute = compute
        self.latency_s = latency_s
        self.failure = failure
        self.max_rows = max_rows
        self.batches: list[int] = []
        self.open_contexts = 0
        self.closed = False

    def create_context(self, *, batched: bool) -> ScriptedContext:
        """A context for the calling thread; see Engine."""
        self.open_contexts += 1
        return ScriptedContext(self)

    def close(self) -> None:
        """Ends the engine; `closed` says so."""
        self.closed = True


class ScriptedContext:
    """Follows its engine's script."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine

    def run(self, parts: Sequence[Arrays], threads: int = 0) -> BatchResult:
        """Answers by the script; see ExecutionContext."""
        engine = self._engine
        start = time.perf_counter_ns()
        arrays = {spec.name: [np.asarray(part[spec.name]) for part in parts] for spec in engine.signature.inputs}
        inputs = {name: np.concatenate(rows) if len(rows) > 1 else rows[0] for name, rows in arrays.items()}
        rows = len(next(iter(inputs.values()))) if inputs and next(iter(inputs.values())).ndim else 1
        gathered = time.perf_counter_ns()
        number = len(engine.batches)
        engine.batches.append(rows)
        if error := engine.failure(number):
            raise ExecutionError(f"the script fails batch {number}: {error}") from error
        if latency_s := engine.latency_s(rows):
            time.sleep(latency_s)
        outputs = engine.compute(inputs)
        return BatchResult(outputs, gathered - start, time.perf_counter_ns() - gathered, 0)

    def close(self) -> None:
        """Ends the context; the engine counts it."""
        self._engine.open_contexts -= 1
