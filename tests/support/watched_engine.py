"""Real engines that tell where the tensors of their runs lie, and hold a run between its look at them and its start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trtserve_engines.engine import Arrays, BatchResult, ExecutionContext
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.open_engine import open_engine
from trtserve_engines.sources import Located, PlacedArrays


class Watch:
    """What was seen of the runs since `clear`: addresses in place by tensor, and how many tensors were copied.

    `before_run` is called on the engine's thread when it has been told where everything lies, `after_run` at its end.
    """

    def __init__(self) -> None:
        self.rest()
        self.clear()

    def rest(self) -> None:
        """Calls nobody."""
        self.before_run: Callable[[], object] = lambda: None
        self.after_run: Callable[[], object] = lambda: None

    def clear(self) -> None:
        """Forgets what was seen."""
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self.copies = 0

    def open_engine(self, model: OnnxModel, **options: Any) -> Any:
        """Stands in for `open_engine`: the real engine, with contexts that are watched."""
        return _Engine(self, open_engine(model, **options))


class _Engine:
    def __init__(self, watch: Watch, engine: Any) -> None:
        self._watch = watch
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def create_context(self, *, batched: bool) -> Any:
        return _Context(self._watch, self._engine.create_context(batched=batched))


class _Context:
    def __init__(self, watch: Watch, context: ExecutionContext) -> None:
        self._watch = watch
        self._context = context

    def run(self, parts: Sequence[Arrays], threads: int = 0) -> BatchResult:
        result = self._context.run([self._watched(part) for part in parts], threads)
        self._watch.after_run()
        self._watch.outputs = {name: array.ctypes.data for name, array in result.outputs.items()}
        return result

    def close(self) -> None:
        self._context.close()

    def _watched(self, part: Arrays) -> Arrays:
        arrays = {
            name: array if isinstance(array, np.ndarray) else _Source(self._watch, name, array)
            for name, array in part.items()
        }
        if not isinstance(part, PlacedArrays):
            return arrays
        watched = PlacedArrays(arrays)
        watched.places = {name: _Place(self._watch, place) for name, place in part.places.items()}
        return watched


class _Source:
    def __init__(self, watch: Watch, name: str, source: Any) -> None:
        self._watch = watch
        self._name = name
        self._source = source
        self.dtype, self.shape = source.dtype, source.shape

    def __len__(self) -> int:
        return len(self._source)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._watch.copies += 1
        return np.asarray(self._source, dtype)

    def copy_to(self, target: np.ndarray) -> None:
        self._watch.copies += 1
        self._source.copy_to(target)

    def in_place(self) -> Located | None:
        there: Located | None = self._source.in_place()
        if there is not None:
            self._watch.inputs[self._name] = there.address
        return there


class _Place:
    """Asked for after the sources, so that a run is held here when all is known."""

    def __init__(self, watch: Watch, place: Any) -> None:
        self._watch = watch
        self._place = place

    def array(self, dtype: np.dtype, shape: tuple[int, ...]) -> Located | None:
        there: Located | None = self._place.array(dtype, shape)
        self._watch.before_run()
        return there
