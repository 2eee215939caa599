"""CUDA graphs: which batch sizes get one, and their capture when an instance starts. What has none runs without."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from trtserve_engines.cuda.api import Driver
from trtserve_engines.cuda.errors import CudaError, OutOfDeviceMemoryError
from trtserve_engines.errors import DeviceLostError, ExecutionError
from trtserve_engines.signature import DYNAMIC
from trtserve_engines.tensorrt.engine_io import EngineIo
from trtserve_engines.tensorrt.io_layout import IoLayout
from trtserve_engines.tensorrt.native_context import NativeContext
from trtserve_engines.tensorrt.profile_choice import batch_buckets, choose_profile, row_limits
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig
from trtserve_engines.tensorrt.slot import Key, Slot, Streams

log = logging.getLogger(__name__)

NewContext = Callable[[int], NativeContext]


def graph_buckets(
    io: EngineIo, layout: IoLayout, driver: Driver, config: RuntimeConfig, *, batched: bool
) -> tuple[int, ...] | None:
    """The batch sizes that get a graph, none for a model of fixed shapes, which gets one; None where there are none.

    A graph holds shapes and addresses and nothing that the host decides during a run. So there is none where values
    make shapes, and none where more than the number of rows varies: those graphs would hardly ever be used.
    """
    if not (config.cuda_graphs and driver.has_graphs) or io.has_host_inputs or layout.unbounded:
        return None
    varying = [tensor for tensor in io.inputs if DYNAMIC in tensor.spec.shape]
    if not varying:
        return ()
    if not batched or any(not _only_rows_vary(io, tensor.name) for tensor in varying):
        return None
    return batch_buckets(*row_limits(io.profiles, [tensor.name for tensor in varying]), config.batch_buckets)


def capture_graphs(
    slots: Sequence[Slot],
    buckets: Sequence[int],
    io: EngineIo,
    streams: Streams,
    new_context: NewContext,
    undo: ExitStack,
) -> bool:
    """Captures a graph per slot and bucket, each from a context of its own, whose state nothing changes afterwards.

    False, with a line in the log, where that cannot be done; the slots then have no graphs.
    """
    with ExitStack() as own:
        try:
            for slot in slots:
                for key in _keys(io, buckets):
                    _capture(slot, key, io, streams, new_context, own)
        except (DeviceLostError, OutOfDeviceMemoryError):
            raise
        except (CudaError, ExecutionError) as error:
            log.warning("this engine runs without CUDA graphs: %s", str(error))  # the error itself holds its frames
            for slot in slots:
                slot.graphs.clear()
            return False
        undo.push(own.pop_all())
    return True


def _capture(slot: Slot, key: Key, io: EngineIo, streams: Streams, new_context: NewContext, undo: ExitStack) -> None:
    given = {tensor.name: shape for tensor, shape in zip(io.inputs, key, strict=True)}
    profile = choose_profile(io.profiles, given)
    assert profile is not None  # buckets lie within the profiles
    context = new_context(profile)
    undo.callback(context.free)
    slot.bind(context)
    # The first run sets up what a capture could not: it loads kernels and resources of these shapes.
    slot.run_once(key, context, streams.compute)
    graph = streams.compute.capture(lambda: context.enqueue(streams.compute))
    undo.callback(graph.free)
    graph.launch(streams.compute)  # the first launch brings it to the GPU, which no request shall wait for
    streams.compute.synchronize()
    slot.graphs[key] = (context, graph)


def _keys(io: EngineIo, buckets: Sequence[int]) -> list[Key]:
    if not buckets:
        return [tuple(tensor.spec.shape for tensor in io.inputs)]
    ranges = [io.profiles[0][tensor.name] for tensor in io.inputs]
    return [tuple((bucket, *shapes.max[1:]) for shapes in ranges) for bucket in buckets]


def _only_rows_vary(io: EngineIo, name: str) -> bool:
    others = {shape[1:] for profile in io.profiles for shape in profile[name]}
    return len(others) == 1
