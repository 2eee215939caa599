"""The execution context: what it refuses, and a run that is enqueued on a stream and works on device memory."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import _graph
from ._basics import Dims, IOutputAllocator, call_back, initialised, log, log_error
from ._cuda import CudaFailure, device
from ._real import ExecutionContextAllocationStrategy, Native, ProfilingVerbosity, Severity, as_in_this_generation
from ._runtime import DeviceMemory, ICudaEngine

Shape = tuple[int, ...]

_ALIGNMENT = 256
_INT32_MAX = 2**31 - 1


class IExecutionContext(Native):
    """One run at a time, from one thread at a time."""

    def __init__(self, engine: ICudaEngine, strategy: Any) -> None:
        self._engine = engine
        self._is_user_managed = strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        self._memory = None if self._is_user_managed else DeviceMemory(engine.device_memory_size_v2)
        self._user_memory = (0, 0)
        self._profile = 0
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, IOutputAllocator] = {}
        self._event = 0
        self._name = ""
        self._nvtx_verbosity = engine.profiling_verbosity
        self._busy = threading.Lock()
        self._runs: list[_Run] = []

    engine = property(lambda self: self._engine)
    active_optimization_profile = property(lambda self: self._profile)
    all_binding_shapes_specified = property(lambda self: not self._unspecified())

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    @property
    def nvtx_verbosity(self) -> Any:
        return self._nvtx_verbosity

    @nvtx_verbosity.setter
    def nvtx_verbosity(self, value: Any) -> None:
        order = (ProfilingVerbosity.NONE, ProfilingVerbosity.LAYER_NAMES_ONLY, ProfilingVerbosity.DETAILED)
        if order.index(value) <= order.index(self._engine.profiling_verbosity):
            self._nvtx_verbosity = value
        else:
            log_error("IExecutionContext::setNvtxVerbosity", "the engine was built with less")

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        with self._exclusive("setOptimizationProfileAsync") as alone:
            if not alone or not 0 <= profile_index < self._engine.num_optimization_profiles:
                raise RuntimeError("Error in set optimization profile async.")
            self._profile = profile_index
            self._shapes.clear()
            return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        if not isinstance(shape, (tuple, list, Dims)):
            raise TypeError("set_input_shape(): incompatible function arguments")
        if not isinstance(shape, Dims) and any(size > _INT32_MAX for size in shape):
            raise RuntimeError("Unable to cast Python instance to C++ type")
        with self._exclusive("setInputShape") as alone:
            return alone and self._set_shape(name, tuple(shape))

    def get_tensor_shape(self, name: str) -> Dims:
        if name in self._engine._inputs:
            return Dims(self._shapes.get(name, _graph.declared_shape(self._engine._inputs[name])))
        if self._unspecified():
            return Dims(_graph.declared_shape(self._engine._outputs[name]))
        return Dims(self._output_shapes()[name])

    def get_tensor_strides(self, name: str) -> Dims:
        shape = tuple(self.get_tensor_shape(name))
        return Dims([int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))])

    def infer_shapes(self) -> list[str]:
        return self._unspecified()

    def get_max_output_size(self, name: str) -> int:
        """In bytes, for the shapes that are set, else for the profile's largest."""
        if not self._unspecified():
            shape = self._output_shapes()[name]
            if -1 not in shape:
                return self._engine._nbytes(name, shape)
            return self._engine._nbytes(
                name, self._engine._data_dependent_bound(self._input_shapes(), self._shape_values())[name]
            )
        return self._engine._nbytes(name, self._engine._largest(self._profile)[name])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if not isinstance(memory, int):
            raise TypeError("set_tensor_address(): incompatible function arguments")
        with self._exclusive("setTensorAddress") as alone:
            if not alone:
                return False
            if name not in self._engine._tensors:
                return self._refuse("setTensorAddress", f"{name} is no input or output of the engine")
            if memory % _ALIGNMENT and name not in self._engine._shape_inputs:
                return self._refuse("setTensorAddress", f"the address of {name} is not aligned to {_ALIGNMENT} bytes")
            self._addresses[name] = memory
            return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator) -> bool:
        if name not in self._engine._outputs:
            return self._refuse("setOutputAllocator", f"{name} is no output of the engine")
        self._allocators[name] = initialised(output_allocator, IOutputAllocator)
        return True

    def get_output_allocator(self, name: str) -> IOutputAllocator | None:
        return self._allocators.get(name)

    def set_input_consumed_event(self, event: int) -> bool:
        self._event = event
        return True

    def get_input_consumed_event(self) -> int:
        return self._event

    def set_device_memory(self, memory: int, size: int) -> None:
        if not self._is_user_managed or memory % _ALIGNMENT or size < self._engine.device_memory_size_v2:
            log_error(
                "IExecutionContext::setDeviceMemoryV2", "the memory is misaligned, too small, or not for the user"
            )
            return
        self._user_memory = (memory, size)

    def update_device_memory_size_for_shapes(self) -> int:
        return 0 if self._unspecified() else self._engine.get_device_memory_size_for_profile_v2(self._profile)

    def set_aux_streams(self, aux_streams: Any) -> None:
        if 0 in aux_streams or len(set(aux_streams)) != len(aux_streams):
            log_error("IExecutionContext::setAuxStreams", "the streams must be distinct and none the default one")

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not isinstance(stream_handle, int):
            raise TypeError("execute_async_v3(): incompatible function arguments")
        with self._exclusive("enqueueV3") as alone:
            try:
                return alone and self._is_ready(stream_handle) and self._enqueue(stream_handle)
            except CudaFailure as failure:
                return self._refuse("enqueueV3", str(failure), "Error Code 1: Cuda Runtime")

    def _set_shape(self, name: str, shape: Shape) -> bool:
        if name not in self._engine._inputs:
            return self._refuse("setInputShape", f"{name} is no input of the engine")
        low, _, high = self._engine._profile_shapes(name, self._profile)
        if len(shape) != len(low):
            return self._refuse("setInputShape", f"{name} has {len(low)} dimensions, {len(shape)} were given")
        if not all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True)):
            return self._refuse(
                "setInputShape",
                f"Set dimension {list(shape)} for tensor {name} does not satisfy any optimization profiles. Valid range"
                f" for profile {self._profile}: {list(low)}..{list(high)}.",
            )
        self._shapes[name] = shape
        return True

    def _is_ready(self, stream: int) -> bool:
        if device().ordinal() != self._engine._ordinal:
            return self._refuse("enqueueV3", "the engine belongs to another device than the current one")
        missing = self._unspecified()
        if missing:
            return self._refuse("enqueueV3", f"Not all shapes are specified: {', '.join(missing)}")
        for name in self._engine._tensors:
            shape = tuple(self.get_tensor_shape(name))
            if not self._addresses.get(name) and name not in self._allocators and 0 not in shape:
                return self._refuse("enqueueV3", f"Address is not set for tensor {name}. Call setTensorAddress before.")
            if -1 in shape and name not in self._allocators:
                return self._refuse("enqueueV3", f"Neither address or allocator is set for output tensor {name}.")
        if self._is_user_managed and not self._user_memory[0] and self._engine.device_memory_size_v2:
            return self._refuse("enqueueV3", "Device memory is not set. Call setDeviceMemoryV2 before.")
        if not self._values_fit():
            return False
        if any(not run.is_captured and not run.is_done and run.stream != stream for run in self._runs):
            return self._refuse("enqueueV3", "the context is still running on another stream")
        if stream == 0:
            log(Severity.WARNING, "Using default stream in enqueueV3() may lead to performance issues")
        return True

    def _values_fit(self) -> bool:
        ranges = self._engine._profile(self._profile)["values"]
        for name, values in self._shape_values().items():
            low, _, high = ranges[name]
            if not all(least <= value <= most for least, value, most in zip(low, values.flat, high, strict=True)):
                return self._refuse("enqueueV3", f"{name}: values {values.tolist()} exceed {low}..{high}")
        return True

    def _enqueue(self, stream: int) -> bool:
        run = _Run(self, stream)
        if self._allocators:
            return self._enqueue_synchronously(run, stream)
        # Neither a stream nor a graph keeps the context alive: the user has to.
        run.is_captured = device().is_capturing(stream)
        self._runs = [each for each in self._runs if each.is_captured or not each.is_done] + [run]
        device().enqueue(stream, _weakly(run, "consume"))
        if self._event and not run.is_captured:
            device().record(self._event, stream)
        device().enqueue(stream, _weakly(run, "finish"))
        return True

    def _enqueue_synchronously(self, run: _Run, stream: int) -> bool:
        """For outputs whose size data decides: the library waits for the stream, so it cannot be captured."""
        if device().is_capturing(stream):
            return self._refuse("enqueueV3", "the engine synchronises for data-dependent shapes: it cannot be captured")
        device().synchronize(stream)
        run.consume()
        if not run.allocate(self._allocators, stream):
            return self._refuse("enqueueV3", "an output allocator gave no memory")
        if self._event:
            device().record(self._event, stream)
        self._runs = [each for each in self._runs if not each.is_done] + [run]
        device().enqueue(stream, _weakly(run, "put"))
        return True

    def _unspecified(self) -> list[str]:
        return [
            name
            for name, value in self._engine._inputs.items()
            if (name in self._engine._shape_inputs and not self._addresses.get(name))
            or (
                name not in self._engine._shape_inputs
                and -1 in _graph.declared_shape(value)
                and name not in self._shapes
            )
        ]

    def _input_shapes(self) -> dict[str, Shape]:
        return {
            name: self._shapes.get(name, _graph.declared_shape(value)) for name, value in self._engine._inputs.items()
        }

    def _output_shapes(self) -> dict[str, Shape]:
        return self._engine._output_shapes(self._input_shapes(), self._shape_values())

    def _shape_values(self) -> dict[str, np.ndarray]:
        """Values of the inputs that live on the host, read now."""
        return {
            name: _read(self._engine, name, self._input_shapes()[name], self._addresses[name])
            for name in sorted(self._engine._shape_inputs)
        }

    @contextmanager
    def _exclusive(self, method: str) -> Iterator[bool]:
        if not self._busy.acquire(blocking=False):
            self._refuse(method, "the context is used by two threads at once, which is undefined")
            yield False
            return
        try:
            yield True
        finally:
            self._busy.release()

    def _refuse(self, method: str, reason: str, code: str = "Error Code 3: API Usage Error") -> bool:
        log_error(f"IExecutionContext::{method}", reason, code)
        return False


class _Run:
    """One enqueue: the shapes and addresses as they were then. Its steps happen on the stream."""

    def __init__(self, context: IExecutionContext, stream: int) -> None:
        self.stream = stream
        self.is_captured = self.is_done = False
        self._engine = context._engine
        self._shapes = context._input_shapes()
        self._addresses = dict(context._addresses)
        self._host_values = context._shape_values()
        self._feeds: dict[str, np.ndarray] = {}
        self._outputs: dict[str, np.ndarray] = {}

    def consume(self) -> None:
        """Reads the inputs from device memory; from here on they may be overwritten."""
        self._feeds = dict(self._host_values)
        for name, shape in self._shapes.items():
            if name not in self._feeds:
                self._feeds[name] = _read(self._engine, name, shape, self._addresses.get(name, 0))

    def compute(self) -> None:
        """Runs the graph. What a kernel would do undefined (an index out of range) leaves outputs of all bits set."""
        names = list(self._engine._outputs)
        try:
            arrays = _graph.run(self._engine._session, self._engine._model, self._feeds, names)
        except Exception as error:
            log_error("IExecutionContext::enqueueV3", f"a kernel misbehaved: {error}", "Error Code 7: Internal Error")
            shapes = self._engine._output_shapes(self._shapes, self._host_values)
            arrays = [
                np.frombuffer(b"\xff" * self._engine._nbytes(name, shapes[name]), self._engine._numpy_type(name))
                for name in names
            ]
        self._outputs = dict(zip(names, arrays, strict=True))

    def finish(self) -> None:
        """Computes and writes."""
        self.compute()
        self.put()

    def allocate(self, allocators: dict[str, IOutputAllocator], stream: int) -> bool:
        """Computes, then asks the user's allocators for memory and tells them the shapes."""
        self.compute()
        for name, allocator in allocators.items():
            array, current = self._outputs[name], self._addresses.get(name, 0)
            size = max(1, array.nbytes)
            if hasattr(allocator, "reallocate_output_async"):
                function, more = allocator.reallocate_output_async, (stream,)
            else:
                function, more = allocator.reallocate_output, ()
            address = call_back(0, function, name, current, size, _ALIGNMENT, *more)
            if not address:
                return False
            self._addresses[name] = int(address)
            call_back(None, allocator.notify_shape, name, Dims(array.shape))
        return True

    def put(self) -> None:
        """Puts the outputs into device memory."""
        for name, array in self._outputs.items():
            if array.nbytes:
                data = np.ascontiguousarray(array)
                ctypes.memmove(self._addresses[name], data.ctypes.data, data.nbytes)
        self.is_done = True


def _read(engine: ICudaEngine, name: str, shape: Shape, address: int) -> np.ndarray:
    size = engine._nbytes(name, shape)
    data = ctypes.string_at(address, size) if size else b""
    return np.frombuffer(data, engine._numpy_type(name)).reshape(shape)


def _weakly(run: _Run, step: str) -> Callable[[], None]:
    reference = weakref.ref(run)

    def work() -> None:
        alive = reference()
        if alive is None:
            log_error(
                "IExecutionContext", "destroyed while its work was still to be done", "Error Code 1: Cuda Runtime"
            )
        else:
            getattr(alive, step)()

    return work


as_in_this_generation(IExecutionContext)
