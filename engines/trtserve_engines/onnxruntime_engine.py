"""ONNX Runtime behind the Engine protocol: the sessions of one model, shared by every context.

A context copies the rows of a batch once into its staging buffers, which stay bound to the session; outputs whose
shape is known beforehand are written into staging as well and leave it by one copy. A lone request's tensors that lie
in memory of another process are read and written there (`in_place.py`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import Arrays, BatchResult, ShapeRanges
from trtserve_engines.errors import ExecutionError, OutOfMemoryError
from trtserve_engines.in_place import InPlace, in_place_of, nothing_in_place
from trtserve_engines.lack_of_memory import is_lack_of_memory
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.onnxruntime_sessions import Sessions, one_line, open_sessions
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec
from trtserve_engines.sources import PlacedArrays
from trtserve_engines.staging import StagingBuffer, gather, gathered_shape, joined

if TYPE_CHECKING:
    import onnxruntime

_BFLOAT16_ELEMENT_TYPE = 16
_MAX_BINDINGS = 128

Shapes = tuple[tuple[int, ...], ...]
_Key = tuple[int, Shapes, tuple[int, ...]]


class OnnxRuntimeEngine:
    """The sessions of one model, by the number of their threads. Runs are thread-safe, so all contexts share them."""

    backend = "onnxruntime"
    max_rows: int | None = None
    shape_ranges: Sequence[ShapeRanges] = ()
    facts: Mapping[str, str] = {}

    def __init__(
        self, sessions: Sessions, signature: Signature, device: str, by_value: frozenset[str] = frozenset()
    ) -> None:
        self._sessions = sessions
        self._by_value = by_value
        self.signature = signature
        self.device = device

    @property
    def thread_choices(self) -> tuple[int, ...]:
        """See Engine: several where the configuration leaves the number of threads open."""
        return tuple(sorted(self._sessions)) if len(self._sessions) > 1 else ()

    @classmethod
    def load(cls, model: OnnxModel, options: OnnxRuntimeOptions, *, gpu: int | None = None) -> OnnxRuntimeEngine:
        """Loads the model on the CPU, or on the GPU of this number.

        Raises ModelFileError with ONNX Runtime's own reason where it refuses, BackendUnavailableError where it cannot
        use the GPU.
        """
        sessions = open_sessions(model.path, options, gpu)
        if gpu is not None:
            return cls(sessions, model.signature, f"gpu:{gpu}")
        return cls(sessions, model.signature, "cpu", model.by_value)

    def create_context(self, *, batched: bool) -> OnnxRuntimeContext:
        """A context for the calling thread; see Engine."""
        return OnnxRuntimeContext(self._sessions, self.signature, self._by_value, batched=batched)

    def close(self) -> None:
        """Drops the sessions; their memory goes when the last context is closed too."""
        del self._sessions


class OnnxRuntimeContext:
    """Staging buffers of one thread and the bindings that tie them to the sessions."""

    def __init__(self, sessions: Sessions, signature: Signature, by_value: frozenset[str], *, batched: bool) -> None:
        self._sessions = sessions
        self._by_value = by_value
        self._most_threads = max(sessions)
        self._signature = signature
        self._nothing_in_place = nothing_in_place(signature)
        self._input_names = [spec.name for spec in signature.inputs]
        self._batched = batched
        self._has_strings = any(spec.dtype.kind == "O" for spec in signature.inputs + signature.outputs)
        self._inputs = [StagingBuffer(spec.dtype) for spec in signature.inputs]
        self._outputs = [StagingBuffer(spec.dtype) for spec in signature.outputs]
        self._bindings: OrderedDict[_Key, _Binding] = OrderedDict()
        self._shapes_by_rows: dict[int | None, list[tuple[int, ...] | None]] = {}

    def run(self, parts: Sequence[Arrays], threads: int = 0) -> BatchResult:
        """Runs the rows of all parts as one batch; see ExecutionContext."""
        threads = threads or self._most_threads
        return self._run_plain(parts, threads) if self._has_strings else self._run_bound(parts, threads)

    def close(self) -> None:
        """Drops the bindings and their memory."""
        self._bindings.clear()
        del self._sessions, self._inputs, self._outputs

    def _run_bound(self, parts: Sequence[Arrays], threads: int) -> BatchResult:
        start = perf_counter_ns()
        shapes = tuple([gathered_shape(parts, name) for name in self._input_names])
        in_place = self._in_place(parts, shapes)
        binding = self._binding(threads, shapes, in_place)
        for name, staged in zip(self._input_names, binding.inputs, strict=True):
            if staged is not None:
                gather(staged, parts, name)
        binding.free_outputs()
        gathered = perf_counter_ns()
        try:
            self._sessions[threads].run_with_iobinding(binding.io)
        except Exception as error:
            raise _failed(error) from error
        ran = perf_counter_ns()
        outputs = binding.copy_outputs(self._signature.outputs, in_place.outputs)
        return BatchResult(outputs, gathered - start, ran - gathered, perf_counter_ns() - ran)

    def _run_plain(self, parts: Sequence[Arrays], threads: int) -> BatchResult:
        """For models with strings, which have no memory that could be staged."""
        start = perf_counter_ns()
        feeds = {}
        for spec in self._signature.inputs:
            array = joined(parts, spec.name)
            feeds[spec.name] = _decoded(array) if spec.dtype.kind == "O" else array
        gathered = perf_counter_ns()
        names = [spec.name for spec in self._signature.outputs]
        try:
            outputs = dict(zip(names, self._sessions[threads].run(names, feeds), strict=True))
        except Exception as error:
            raise _failed(error) from error
        return BatchResult(outputs, gathered - start, perf_counter_ns() - gathered, 0)

    def _in_place(self, parts: Sequence[Arrays], shapes: Shapes) -> InPlace:
        part = parts[0]
        if len(parts) > 1 or not isinstance(part, PlacedArrays):
            return self._nothing_in_place
        return in_place_of(part, self._signature, self._output_shapes(shapes), self._by_value)

    def _binding(self, threads: int, shapes: Shapes, in_place: InPlace) -> _Binding:
        key = threads, shapes, in_place.addresses
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bind(threads, shapes, in_place)
            if len(self._bindings) >= _MAX_BINDINGS:
                self._bindings.popitem(last=False)
            self._bindings[key] = binding
        else:
            self._bindings.move_to_end(key)
        return binding

    def _bind(self, threads: int, shapes: Shapes, in_place: InPlace) -> _Binding:
        inputs, moved = _staged(self._inputs, shapes, in_place.inputs)
        outputs, outputs_moved = _staged(self._outputs, self._output_shapes(shapes), in_place.outputs)
        if moved or outputs_moved:
            self._bindings.clear()
        return _Binding(self._sessions[threads], self._signature, inputs, outputs, in_place)

    def _output_shapes(self, shapes: Shapes) -> list[tuple[int, ...] | None]:
        rows = shapes[0][0] if self._batched else None
        known = self._shapes_by_rows.get(rows)
        if known is None:
            if len(self._shapes_by_rows) >= _MAX_BINDINGS:
                self._shapes_by_rows.clear()
            known = self._shapes_by_rows[rows] = [_known_shape(spec, rows) for spec in self._signature.outputs]
        return known


class _Binding:
    """Arrays of one set of input shapes, tied to the session; staged ones are kept, None stands for the others.

    Those are outputs of unknown shape, and what lies in place: whoever runs the binding holds that.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        signature: Signature,
        inputs: Sequence[np.ndarray | None],
        outputs: Sequence[np.ndarray | None],
        in_place: InPlace,
    ) -> None:
        self.io = session.io_binding()
        self.inputs = inputs
        self._outputs = outputs
        self._unknown: list[str] = []
        for spec, staged, placed in zip(signature.inputs, inputs, in_place.inputs, strict=True):
            array = staged if placed is None else placed
            assert array is not None  # an input has a shape
            self.io.bind_input(spec.name, *_memory(array))
        for spec, staged, placed in zip(signature.outputs, outputs, in_place.outputs, strict=True):
            # All in the signature's order, because values come back in the order of their first binding.
            array = staged if placed is None else placed
            if array is None:
                self._unknown.append(spec.name)
                self.io.bind_output(spec.name)
            else:
                self.io.bind_output(spec.name, *_memory(array))

    def free_outputs(self) -> None:
        """Lets outputs of unknown shape be made anew: what a run has left bound, the next one's would have to fit."""
        for name in self._unknown:
            self.io.bind_output(name)

    def copy_outputs(self, specs: Sequence[TensorSpec], placed: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        """The outputs in memory of their own, or at their places."""
        values = self.io.get_outputs() if self._unknown else ()
        arrays = {}
        for index, (spec, staged, place) in enumerate(zip(specs, self._outputs, placed, strict=True)):
            if place is not None:
                arrays[spec.name] = place
            else:
                arrays[spec.name] = staged.copy() if staged is not None else _array_of(values[index], spec.dtype)
        return arrays


def _failed(error: Exception) -> ExecutionError:
    """What a run raises in place of ONNX Runtime's own exceptions, which have no common base class."""
    reason = one_line(error)
    kind = OutOfMemoryError if isinstance(error, MemoryError) or is_lack_of_memory(reason) else ExecutionError
    return kind(f"ONNX Runtime failed to run the model: {reason or type(error).__name__}")


def _staged(
    buffers: Sequence[StagingBuffer],
    shapes: Sequence[tuple[int, ...] | None],
    placed: Sequence[np.ndarray | None],
) -> tuple[list[np.ndarray | None], bool]:
    """The staged arrays of those that have a shape and no place, and whether a buffer moved for one."""
    arrays: list[np.ndarray | None] = []
    any_moved = False
    for buffer, shape, place in zip(buffers, shapes, placed, strict=True):
        array, moved = (None, False) if shape is None or place is not None else buffer.array(shape)
        arrays.append(array)
        any_moved = any_moved or moved
    return arrays, any_moved


def _known_shape(spec: TensorSpec, rows: int | None) -> tuple[int, ...] | None:
    """The output's shape where it is certain before the run, else None."""
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    return None if DYNAMIC in shape else shape


def _memory(array: np.ndarray) -> tuple[str, int, Any, Sequence[int], int]:
    """What a binding wants to know of an array, which it does not keep alive."""
    # numpy does not know bfloat16, so neither do ONNX Runtime's conversions.
    element_type = _BFLOAT16_ELEMENT_TYPE if array.dtype.name == "bfloat16" else array.dtype.type
    return "cpu", 0, element_type, array.shape, array.ctypes.data


def _array_of(value: Any, dtype: np.dtype) -> np.ndarray:
    if dtype.name != "bfloat16":
        return np.array(value.numpy())
    import ctypes

    shape = value.shape()
    memory = (ctypes.c_uint8 * (math.prod(shape) * dtype.itemsize)).from_address(value.data_ptr())
    return np.frombuffer(memory, dtype).reshape(shape).copy()


def _decoded(array: np.ndarray) -> np.ndarray:
    texts = np.empty(array.size, object)
    texts[:] = [element.decode() if isinstance(element, bytes) else element for element in array.flat]
    return texts.reshape(array.shape)
