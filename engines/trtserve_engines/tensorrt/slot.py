"""One place for a batch on its way: memory at fixed addresses, contexts bound to it, and how each shape is run in it.

An instance has as many slots as it may have batches on the GPU at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trtserve_engines.cuda.api import Device, Event, Graph, Stream
from trtserve_engines.engine import Arrays
from trtserve_engines.errors import ExecutionError, SignatureError
from trtserve_engines.staging import gather
from trtserve_engines.tensorrt.engine_io import EngineIo, EngineTensor
from trtserve_engines.tensorrt.io_layout import IoLayout, dynamic_shapes
from trtserve_engines.tensorrt.native_context import NativeContext
from trtserve_engines.tensorrt.output_room import OutputRoom
from trtserve_engines.tensorrt.profile_choice import bucket_of, choose_profile, explain_misfit
from trtserve_engines.tensorrt.profile_shapes import Shape

_MAX_ROUTES = 128

Key = tuple[Shape, ...]
"""Of each input its shape, or its values where it is read as a shape."""


class Streams(NamedTuple):
    """What an instance enqueues on: copies to the device, compute, and copies back go on beside each other."""

    upload: Stream
    compute: Stream
    download: Stream


class Copy(NamedTuple):
    """One tensor's way between the two blocks."""

    address: int
    size: int
    offset: int


class StagedInput(NamedTuple):
    """Where the rows of an input are gathered, and the rows behind them that only fill the batch up."""

    name: str
    rows: np.ndarray
    padding: np.ndarray


@dataclass
class Route:
    """How batches of one shape are run in a slot; worked out once. `expected_s` is how long one is waited for."""

    inputs: Sequence[StagedInput]
    uploads: Sequence[Copy]
    context: NativeContext
    shapes: Mapping[str, Shape]
    graph: Graph | None
    downloads: Sequence[Copy]
    outputs: Mapping[str, np.ndarray]
    expected_s: float = 0.0

    def note_wait(self, seconds: float) -> None:
        """Learns from a wait: quick to expect less and slow to expect more, because too long a sleep is felt."""
        grown = self.expected_s * 1.25
        self.expected_s = min(seconds, grown) if grown else seconds

    def gather(self, parts: Sequence[Arrays]) -> None:
        """Copies the rows of all parts into pinned memory: the only copy of an input byte on the host."""
        for name, rows, padding in self.inputs:
            gather(rows, parts, name)
            if len(padding):
                padding[...] = 0


class Slot:
    """Memory, events, one context per profile, graphs, and the routes to them. Lives on the instance's thread."""

    def __init__(self, device: Device, io: EngineIo, layout: IoLayout) -> None:
        self._io = io
        self._layout = layout
        self._staged = [tensor for tensor in (*io.inputs, *io.outputs) if tensor.name not in layout.unbounded]
        self._routes: OrderedDict[Key, Route] = OrderedDict()
        with ExitStack() as undo:
            self.pinned = device.pinned(layout.total_bytes)
            undo.callback(self.pinned.free)
            self.memory = device.allocate(layout.total_bytes)
            undo.callback(self.memory.free)
            self.uploaded, self.computed, self.done = (_event(device, undo) for _ in range(3))
            self._undo = undo.pop_all()
        self.contexts: list[NativeContext] = []
        self.rooms: dict[str, OutputRoom] = {}
        self.graphs: dict[Key, tuple[NativeContext, Graph]] = {}
        self.is_busy = False

    def bind(self, context: NativeContext) -> NativeContext:
        """Ties a context to this slot's memory, for good."""
        for tensor in self._staged:
            base = self.pinned.address if tensor.on_host else self.memory.address
            context.set_address(tensor.name, base + self._layout.offsets[tensor.name])
        for name, room in self.rooms.items():
            context.set_allocator(name, room.native)
        return context

    def clear(self, stream: Stream) -> None:
        """Zeroes the inputs, on the host and on the device: a run on what memory happens to hold could do anything."""
        self.pinned.array[:] = 0
        stream.copy_to_device(self.memory.address, self.pinned, self._layout.input_bytes)
        stream.synchronize()

    def route(self, key: Key, buckets: Sequence[int]) -> Route:
        """How a batch with this key is run, padded to one of `buckets`; raises SignatureError outside all profiles."""
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = self._new_route(key, buckets)
            if len(self._routes) > _MAX_ROUTES:
                self._routes.popitem(last=False)
        return route

    def run_once(self, key: Key, context: NativeContext, stream: Stream) -> None:
        """A plain run of this key on whatever the inputs hold, up to its end."""
        context.set_shapes(dynamic_shapes(self._io, self._shapes(key)))
        context.enqueue(stream)
        stream.synchronize()

    def free(self) -> None:
        """Gives back everything but the contexts and graphs, whose owner frees them first."""
        self._routes.clear()
        for room in self.rooms.values():
            room.free()
        self._undo.close()

    def _new_route(self, key: Key, buckets: Sequence[int]) -> Route:
        padded = _padded(key, buckets)
        shapes = self._shapes(padded)
        context, graph = self.graphs.get(padded) or (self._context_of(padded), None)
        inputs = [self._staged_input(tensor, shapes[tensor.name], own) for tensor, own in self._own_shapes(key)]
        changing = dynamic_shapes(self._io, shapes)
        if graph is None:
            self._set_values(key)
            context.set_shapes(changing)
            if self._io.has_host_inputs:
                context.check_complete()
        outputs, downloads = {}, []
        for tensor in self._io.outputs:
            if tensor.name in self.rooms:
                continue
            shape = context.output_shape(tensor.name)
            if padded != key:
                shape = (key[0][0], *shape[1:])
            outputs[tensor.name] = self._array(tensor, shape)
            downloads.append(self._copy(tensor, shape))
        uploads = [self._copy(tensor, shapes[tensor.name]) for tensor in self._io.inputs if not tensor.on_host]
        return Route(inputs, _some(uploads), context, changing, graph, _some(downloads), outputs)

    def _context_of(self, key: Key) -> NativeContext:
        given = {tensor.name: shape for tensor, shape in zip(self._io.inputs, key, strict=True)}
        profile = choose_profile(self._io.profiles, given)
        if profile is None:
            raise SignatureError(explain_misfit(self._io.profiles, given))
        return self.contexts[profile]

    def _own_shapes(self, key: Key) -> list[tuple[EngineTensor, Shape]]:
        shapes = self._shapes(key)
        return [(tensor, shapes[tensor.name]) for tensor in self._io.inputs]

    def _shapes(self, key: Key) -> dict[str, Shape]:
        """The shape of every input; that of an input whose values are in the key is fixed."""
        return {
            tensor.name: tensor.spec.shape if tensor.on_host else shape
            for tensor, shape in zip(self._io.inputs, key, strict=True)
        }

    def _set_values(self, key: Key) -> None:
        for tensor, values in zip(self._io.inputs, key, strict=True):
            if tensor.on_host:
                self._array(tensor, tensor.spec.shape)[...] = np.array(values).reshape(tensor.spec.shape)

    def _staged_input(self, tensor: EngineTensor, shape: Shape, own: Shape) -> StagedInput:
        array = self._array(tensor, shape)
        if shape == own:
            return StagedInput(tensor.name, array, array.reshape(-1)[:0])
        return StagedInput(tensor.name, array[: own[0]], array[own[0] :])

    def _array(self, tensor: EngineTensor, shape: Shape) -> np.ndarray:
        size, room = tensor.nbytes(shape), self._layout.sizes[tensor.name]
        if size > room:
            raise ExecutionError(
                f"{tensor.name!r} would have the shape {list(shape)}, which is {size} bytes; the largest of any"
                f" profile was measured to be {room}. Give a profile whose smallest, usual or largest values make it as"
                " large as it can become"
            )
        start = self._layout.offsets[tensor.name]
        piece = self.pinned.array[start : start + size]
        return piece.view(tensor.spec.dtype).reshape(shape)

    def _copy(self, tensor: EngineTensor, shape: Shape) -> Copy:
        offset = self._layout.offsets[tensor.name]
        return Copy(self.memory.address + offset, tensor.nbytes(shape), offset)


def _event(device: Device, undo: ExitStack) -> Event:
    event = device.event()
    undo.callback(event.free)
    return event


def _padded(key: Key, buckets: Sequence[int]) -> Key:
    """The key with its rows up to a bucket; the same where there are none."""
    bucket = bucket_of(buckets, key[0][0]) if buckets else None
    return key if bucket is None else tuple((bucket, *shape[1:]) for shape in key)


def _some(copies: Sequence[Copy]) -> list[Copy]:
    return [copy for copy in copies if copy.size]
