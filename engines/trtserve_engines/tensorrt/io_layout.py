"""Where inputs and outputs lie in an instance's memory: one block on the host and an equal one on the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from trtserve_engines.signature import DYNAMIC
from trtserve_engines.tensorrt.engine_io import EngineIo
from trtserve_engines.tensorrt.memory_need import aligned
from trtserve_engines.tensorrt.native_context import NativeContext
from trtserve_engines.tensorrt.profile_choice import Profile
from trtserve_engines.tensorrt.profile_shapes import Shape


@dataclass(frozen=True)
class IoLayout:
    """Offsets and sizes of all inputs and outputs, each with room for its largest shape in any profile.

    Inputs come first and end at `input_bytes`. `unbounded` are the outputs whose size only a run tells; they have no
    place in the block.
    """

    offsets: Mapping[str, int]
    sizes: Mapping[str, int]
    input_bytes: int
    total_bytes: int
    unbounded: frozenset[str]


def measure_layout(io: EngineIo, contexts: Iterable[NativeContext]) -> IoLayout:
    """The layout of an engine; `contexts` has one for each profile, in order.

    Outputs are measured for the smallest, the usual and the largest inputs, because one that is cut out by a value is
    largest for the smallest.
    """
    sizes = {tensor.name: 0 for tensor in (*io.inputs, *io.outputs)}
    unbounded: set[str] = set()
    for context, profile in zip(contexts, io.profiles, strict=True):
        for corner in range(3):
            _measure(io, context, profile, corner, sizes, unbounded)
    sizes.update(dict.fromkeys(unbounded, 0))
    return _placed(io, sizes, frozenset(unbounded))


def _measure(
    io: EngineIo, context: NativeContext, profile: Profile, corner: int, sizes: dict[str, int], unbounded: set[str]
) -> None:
    shapes, values = _inputs_at(io, profile, corner)
    for tensor in io.inputs:
        if tensor.on_host:
            context.set_address(tensor.name, values[tensor.name].ctypes.data)
        sizes[tensor.name] = max(sizes[tensor.name], tensor.nbytes(shapes[tensor.name]))
    context.set_shapes(dynamic_shapes(io, shapes))
    for tensor in io.outputs:
        if DYNAMIC in context.output_shape(tensor.name):
            unbounded.add(tensor.name)
        else:
            sizes[tensor.name] = max(sizes[tensor.name], context.max_output_bytes(tensor.name))


def _inputs_at(io: EngineIo, profile: Profile, corner: int) -> tuple[dict[str, Shape], dict[str, np.ndarray]]:
    """The shape of every input at one end of the profile, and the values of those that are read as shapes."""
    shapes, values = {}, {}
    for tensor in io.inputs:
        given = profile[tensor.name][corner]
        shapes[tensor.name] = tensor.spec.shape if tensor.on_host else given
        if tensor.on_host:
            values[tensor.name] = np.array(given, tensor.spec.dtype).reshape(tensor.spec.shape)
    return shapes, values


def dynamic_shapes(io: EngineIo, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Of all inputs' shapes those that TensorRT has to be told."""
    return {tensor.name: shapes[tensor.name] for tensor in io.inputs if DYNAMIC in tensor.spec.shape}


def _placed(io: EngineIo, sizes: Mapping[str, int], unbounded: frozenset[str]) -> IoLayout:
    offsets, end, input_bytes = {}, 0, 0
    for tensor in (*io.inputs, *io.outputs):
        offsets[tensor.name] = end
        end += aligned(sizes[tensor.name])
        if tensor in io.inputs:
            input_bytes = end
    # Never empty, so that every tensor, if it has no elements, has an address.
    return IoLayout(offsets, sizes, input_bytes, max(end, aligned(1)), unbounded)
