"""A TensorRT execution context of one profile: None and False become exceptions with TensorRT's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtserve_engines.cuda.api import Device, Stream
from trtserve_engines.errors import DeviceMemoryError, ExecutionError, OutOfMemoryError
from trtserve_engines.lack_of_memory import is_lack_of_memory
from trtserve_engines.tensorrt.profile_shapes import Shape
from trtserve_engines.tensorrt.trt_log import TensorRtLog


class NativeContext:
    """One IExecutionContext, with scratch memory that the caller lends it, for the thread that made it.

    Contexts that share a stream may share the scratch memory, because they use it one after another. Raises
    DeviceMemoryError where there is no memory for one.
    """

    def __init__(self, trt: Any, engine: Any, log: TensorRtLog, profile: int, device: Device, stream: Stream) -> None:
        self._log = log
        self._device = device
        self._shapes: dict[str, Shape] = {}
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with log.collect() as lines:
            self._native = engine.create_execution_context(strategy)
        if self._native is None:
            device.memory()  # raises where the device is lost
            raise DeviceMemoryError(f"TensorRT could not make an execution context: {lines.reason()}")
        if engine.profiling_verbosity == trt.ProfilingVerbosity.DETAILED:
            # What was built in for the inspector would be put out at each enqueue, which costs time.
            self._native.nvtx_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        if profile:
            self._choose(profile, stream)

    def use_scratch(self, address: int, size: int) -> None:
        """Lends it memory for what lies between the layers."""
        self._native.set_device_memory(address, size)

    def set_address(self, name: str, address: int) -> None:
        """Where an input or output lies; a host address for an input that is read as a shape."""
        self._ask("set_tensor_address", name, address)

    def set_allocator(self, name: str, allocator: Any) -> None:
        """What makes room for an output whose size only the run tells."""
        self._ask("set_output_allocator", name, allocator)

    def set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Shapes of the inputs that have dynamic ones; only what changes is set, because a change costs time."""
        for name, shape in shapes.items():
            if self._shapes.get(name) != shape:
                self._ask("set_input_shape", name, shape)
                self._shapes[name] = shape

    def check_complete(self) -> None:
        """Works out shapes from the values of inputs that are read as shapes. Raises ExecutionError."""
        with self._log.collect() as lines:
            missing = self._native.infer_shapes()
        if missing:
            raise ExecutionError(f"TensorRT lacks shapes or values of {', '.join(missing)}: {lines.reason()}")

    def output_shape(self, name: str) -> Shape:
        """The output's shape for the inputs' shapes that are set; -1 where only the run tells."""
        return tuple(self._native.get_tensor_shape(name))

    def max_output_bytes(self, name: str) -> int:
        """An upper bound for the inputs' shapes that are set."""
        return int(self._native.get_max_output_size(name))

    def enqueue(self, stream: Stream) -> None:
        """Puts a run on the stream. Raises ExecutionError with TensorRT's reason, or DeviceLostError."""
        self._ask("execute_async_v3", stream.handle)

    def free(self) -> None:
        """Lets TensorRT free it, here and now."""
        del self._native

    def _choose(self, profile: int, stream: Stream) -> None:
        with self._log.collect() as lines:
            try:
                self._native.set_optimization_profile_async(profile, stream.handle)
            except RuntimeError as error:
                raise ExecutionError(f"TensorRT refused profile {profile}: {lines.reason()}") from error
        stream.synchronize()

    def _ask(self, method: str, *arguments: Any) -> None:
        with self._log.collect() as lines:
            done = getattr(self._native, method)(*arguments)
        if not done:
            self._device.memory()  # raises where the device is lost
            kind = OutOfMemoryError if is_lack_of_memory(lines.reason()) else ExecutionError
            raise kind(f"TensorRT refused {method}{arguments}: {lines.reason()}")
