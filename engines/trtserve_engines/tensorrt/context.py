"""The execution context of one instance: gathers, launches and collects batches, several at once on their way.

Copies to the device, compute and copies back have a stream each; the batches of an instance compute one after another
and share scratch memory, while their copies overlap. Everything is made, used and freed on the thread that made it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from trtserve_engines.cuda.api import Device, Driver
from trtserve_engines.cuda.errors import OutOfDeviceMemoryError
from trtserve_engines.cuda.immortal import keep_for_good
from trtserve_engines.cuda.tracebacks import clear_frames
from trtserve_engines.cuda.waiting import wait_for_event
from trtserve_engines.engine import Arrays, BatchResult
from trtserve_engines.errors import DeviceLostError, DeviceMemoryError, ExecutionError
from trtserve_engines.staging import gathered_shape
from trtserve_engines.tensorrt.engine_io import EngineIo
from trtserve_engines.tensorrt.graphs import capture_graphs, graph_buckets
from trtserve_engines.tensorrt.io_layout import IoLayout
from trtserve_engines.tensorrt.native_context import NativeContext
from trtserve_engines.tensorrt.output_room import OutputRoom
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig
from trtserve_engines.tensorrt.slot import Key, Route, Slot, Streams
from trtserve_engines.tensorrt.trt_log import TensorRtLog

log = logging.getLogger(__name__)


@dataclass
class EngineParts:
    """What the contexts of an engine share. `native` is the ICudaEngine, None once the engine is closed.

    `lost` is set as soon as one of them finds that the GPU is lost.
    """

    trt: Any
    log: TensorRtLog
    driver: Driver
    gpu: int
    native: Any
    io: EngineIo
    layout: IoLayout
    scratch_bytes: int
    config: RuntimeConfig
    lost: Event


class Pending(NamedTuple):
    """A batch that was launched and is to be collected."""

    slot: Slot
    route: Route
    input_ns: int
    launched_ns: int


class TensorRtContext:
    """See PipelinedContext. Raises DeviceMemoryError where there is no room for it."""

    def __init__(self, engine: EngineParts, *, batched: bool) -> None:
        self.depth = engine.config.pipeline_depth
        self._engine = engine
        self._next = 0
        with ExitStack() as undo:
            self._device: Device = engine.driver.open(engine.gpu)
            undo.callback(self._device.close)
            try:
                self._open(undo, batched)
            except DeviceLostError:
                engine.lost.set()
                self._undo = undo.pop_all()
                self._abandon()
                raise
            except OutOfDeviceMemoryError as error:
                clear_frames(error)
                raise DeviceMemoryError(f"there is not enough memory for an instance of the engine: {error}") from error
            except Exception as error:
                clear_frames(error)
                raise
            self._undo = undo.pop_all()

    @property
    def has_graphs(self) -> bool:
        """Whether batches are launched as CUDA graphs."""
        return bool(self._slots[0].graphs)

    @property
    def compute_stream(self) -> int:
        """CUstream on which the batches compute, one after another."""
        return self._streams.compute.handle

    def run(self, parts: Sequence[Arrays], threads: int = 0) -> BatchResult:
        """Runs the rows of all parts as one batch; see ExecutionContext. `threads` means nothing to a GPU."""
        return self.collect(self.launch(parts))

    def launch(self, parts: Sequence[Arrays]) -> Pending:
        """Starts a batch; see PipelinedContext."""
        if self._engine.lost.is_set():
            raise DeviceLostError("the GPU was lost by an earlier batch; start the process again")
        slot = self._slots[self._next]
        if slot.is_busy:
            raise ExecutionError(f"{self.depth} batches are on their way already; collect the oldest first")
        start = perf_counter_ns()
        try:
            route = slot.route(self._key(parts), self._buckets)
            route.gather(parts)
            gathered = perf_counter_ns()
            self._enqueue(slot, route)
        except DeviceLostError:
            self._engine.lost.set()
            raise
        slot.is_busy = True
        self._next = (self._next + 1) % self.depth
        return Pending(slot, route, gathered - start, gathered)

    def collect(self, pending: Pending) -> BatchResult:
        """Waits for a batch that was launched; see PipelinedContext."""
        slot, route, input_ns, launched = pending
        start = perf_counter_ns()
        try:
            self._wait(slot, route.expected_s)
        finally:
            slot.is_busy = False
        done = perf_counter_ns()
        route.note_wait((done - start) / 1e9)
        outputs = {name: array.copy() for name, array in route.outputs.items()}
        for name, room in slot.rooms.items():
            outputs[name] = room.array().copy()
        return BatchResult(outputs, input_ns, done - launched, perf_counter_ns() - done)

    def close(self) -> None:
        """Gives everything back; where the GPU is lost, leaves all of it to the end of the process."""
        if self._engine.lost.is_set():
            self._abandon()
            return
        try:
            self._drain()
            self._undo.close()
        except DeviceLostError as error:
            log.error("the GPU was lost when an instance was closed: %s", str(error))
            self._engine.lost.set()
            self._abandon()

    def _open(self, undo: ExitStack, batched: bool) -> None:
        engine, device = self._engine, self._device
        self._streams = Streams(*(_freed(undo, device.stream()) for _ in range(3)))
        self._idle = _freed(undo, device.event())
        scratch = _freed(undo, device.allocate(engine.scratch_bytes))

        def new_context(profile: int) -> NativeContext:
            context = NativeContext(engine.trt, engine.native, engine.log, profile, device, self._streams.compute)
            context.use_scratch(scratch.address, engine.scratch_bytes)
            return context

        self._slots = [_freed(undo, Slot(device, engine.io, engine.layout)) for _ in range(self.depth)]
        for slot in self._slots:
            for output in engine.io.outputs:
                if output.name in engine.layout.unbounded:
                    slot.rooms[output.name] = OutputRoom(engine.trt, device, output)
            profiles = range(len(engine.io.profiles))
            slot.contexts = [slot.bind(_freed(undo, new_context(profile))) for profile in profiles]
            slot.clear(self._streams.compute)
        self._buckets: Sequence[int] = ()
        buckets = graph_buckets(engine.io, engine.layout, engine.driver, engine.config, batched=batched)
        if buckets is not None and capture_graphs(self._slots, buckets, engine.io, self._streams, new_context, undo):
            self._buckets = buckets

    def _enqueue(self, slot: Slot, route: Route) -> None:
        for room in slot.rooms.values():
            room.settle()
        try:
            self._enqueue_on_streams(slot, route)
        except DeviceLostError:
            raise
        except Exception:
            # Nothing of a launch that failed half-way may still be going on when the slot is used again.
            self._drain()
            for room in slot.rooms.values():
                room.settle()  # raises the reason where it was a lack of memory
            raise

    def _enqueue_on_streams(self, slot: Slot, route: Route) -> None:
        upload, compute, download = self._streams
        for address, size, offset in route.uploads:
            upload.copy_to_device(address, slot.pinned, size, offset)
        slot.uploaded.record(upload)
        compute.wait_for(slot.uploaded)
        if route.graph is not None:
            route.graph.launch(compute)
        else:
            route.context.set_shapes(route.shapes)
            route.context.enqueue(compute)
        slot.computed.record(compute)
        download.wait_for(slot.computed)
        for address, size, offset in route.downloads:
            download.copy_to_host(slot.pinned, address, size, offset)
        for room in slot.rooms.values():
            room.download(download)
        slot.done.record(download)

    def _key(self, parts: Sequence[Arrays]) -> Key:
        return tuple(
            tuple(np.asarray(parts[0][tensor.name]).ravel().tolist())
            if tensor.on_host
            else gathered_shape(parts, tensor.name)
            for tensor in self._engine.io.inputs
        )

    def _wait(self, slot: Slot, expected_s: float) -> None:
        try:
            wait_for_event(slot.done, timeout_s=self._engine.config.wait_timeout_s, expected_s=expected_s)
        except DeviceLostError:
            self._engine.lost.set()
            raise

    def _drain(self) -> None:
        """Waits until nothing of this instance is going on."""
        for stream in self._streams:
            self._idle.record(stream)
            wait_for_event(self._idle, timeout_s=self._engine.config.wait_timeout_s)

    def _abandon(self) -> None:
        keep_for_good(self)
        self._device.abandon()


def _freed(undo: ExitStack, thing: Any) -> Any:
    """The thing, which goes when `undo` is closed."""
    undo.callback(thing.free)
    return thing
