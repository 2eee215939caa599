"""A plan as an Engine: deserialised once per GPU, its memory need checked, shared by the contexts of all instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from mmap import mmap
from threading import Event
from typing import Any

from trtserve_engines.cuda.api import Device, Driver, Memory
from trtserve_engines.cuda.device_thread import DeviceThread
from trtserve_engines.cuda.errors import OutOfDeviceMemoryError
from trtserve_engines.cuda.immortal import keep_for_good
from trtserve_engines.engine import ShapeRanges
from trtserve_engines.errors import DeviceMemoryError
from trtserve_engines.signature import DYNAMIC, Signature
from trtserve_engines.tensorrt.context import EngineParts, TensorRtContext
from trtserve_engines.tensorrt.deserialise import deserialise
from trtserve_engines.tensorrt.engine_io import EngineIo, read_engine_io
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.io_layout import IoLayout, measure_layout
from trtserve_engines.tensorrt.memory_need import MemoryNeed, check_memory
from trtserve_engines.tensorrt.native_context import NativeContext
from trtserve_engines.tensorrt.plugins import load_plugins
from trtserve_engines.tensorrt.profile_choice import batch_limit
from trtserve_engines.tensorrt.runtime_config import RuntimeConfig
from trtserve_engines.tensorrt.trt_log import TensorRtLog, tensorrt_log


class TensorRtEngine:
    """See Engine. TensorRT's own objects are made and freed on a thread of the engine's own."""

    backend = "tensorrt"
    thread_choices: tuple[int, ...] = ()

    def __init__(self, thread: DeviceThread, parts: EngineParts) -> None:
        self._thread = thread
        self._parts = parts
        self.signature: Signature = parts.io.signature
        self.device = f"gpu:{parts.gpu}"
        self.max_rows = _max_rows(parts.io)
        self.scratch_bytes = parts.scratch_bytes
        self.io_bytes = parts.layout.total_bytes
        self.shape_ranges: Sequence[ShapeRanges] = parts.io.profiles
        self.facts: Mapping[str, str] = {}

    @classmethod
    def load(
        cls,
        plan: bytes | memoryview | mmap,
        *,
        driver: Driver,
        gpu: int = 0,
        config: RuntimeConfig | None = None,
        instances: int = 1,
        plugins: Sequence[str] = (),
    ) -> TensorRtEngine:
        """Deserialises `plan`, which may be a memory map, on a GPU that has room for so many instances.

        `driver` is the proof that CUDA works: without one TensorRT must not be touched. Raises
        BackendUnavailableError, PlanError, DeviceMemoryError with a list of what is needed, or CudaError.
        """
        trt = import_tensorrt()
        thread = DeviceThread(driver, gpu, f"tensorrt gpu:{gpu}")
        loading = _Loading(trt, driver, gpu, config or RuntimeConfig(), instances)
        try:
            load_plugins(trt, plugins, loading.log)
            with memoryview(plan) as view:
                parts = thread.call(lambda device: loading.load(device, view))
        except OutOfDeviceMemoryError as error:
            thread.close()
            raise DeviceMemoryError(f"there is not enough memory to load the engine: {error}") from error
        except BaseException:
            thread.close()
            raise
        return cls(thread, parts)

    def create_context(self, *, batched: bool) -> TensorRtContext:
        """A context for the calling thread; see Engine. Raises DeviceMemoryError or ExecutionError."""
        return TensorRtContext(self._parts, batched=batched)

    def close(self) -> None:
        """Frees the engine, on its own thread; see Engine. Where its GPU is lost, leaves it to the process's end."""
        if self._parts.lost.is_set():
            keep_for_good(self)
            return
        self._thread.call(self._free)
        self._thread.close()

    def _free(self, device: Device) -> None:
        self._parts.native = None


class _Loading:
    """What the load of one plan knows."""

    def __init__(self, trt: Any, driver: Driver, gpu: int, config: RuntimeConfig, instances: int) -> None:
        self._trt, self._driver, self._gpu, self._config, self._instances = trt, driver, gpu, config, instances
        self.log: TensorRtLog = tensorrt_log(trt)

    def load(self, device: Device, plan: memoryview) -> EngineParts:
        """Runs on the engine's thread."""
        weights = MemoryNeed("weights, as long as the plan,", plan.nbytes)
        self._check([weights], device.memory())
        native = deserialise(self._trt, self.log, plan, self._where())
        io = read_engine_io(self._trt, native)
        layout = self._measure(device, native, io)
        scratch = native.device_memory_size_v2
        free, total = device.memory()
        self._check([weights, *self._needs(scratch, layout)], Memory(free + weights.size, total))
        return EngineParts(
            self._trt, self.log, self._driver, self._gpu, native, io, layout, scratch, self._config, Event()
        )

    def _measure(self, device: Device, native: Any, io: EngineIo) -> IoLayout:
        stream = device.stream()
        contexts = []
        try:
            for profile in range(len(io.profiles)):
                contexts.append(NativeContext(self._trt, native, self.log, profile, device, stream))
            return measure_layout(io, contexts)
        finally:
            for context in contexts:
                context.free()
            stream.free()

    def _needs(self, scratch: int, layout: IoLayout) -> list[MemoryNeed]:
        depth, instances = self._config.pipeline_depth, self._instances
        each = f"{instances} instances" if instances > 1 else "1 instance"
        return [
            MemoryNeed(f"scratch memory of {each}", instances * scratch),
            MemoryNeed(
                f"inputs and outputs of {each} with {depth} batches each", instances * depth * layout.total_bytes
            ),
        ]

    def _check(self, needs: Sequence[MemoryNeed], memory: Memory) -> None:
        check_memory(needs, memory, self._config.memory_reserve_bytes, self._where())

    def _where(self) -> str:
        return f"gpu:{self._gpu} ({self._driver.gpus()[self._gpu].identity.name})"


def _max_rows(io: EngineIo) -> int | None:
    """The largest number of rows in a batch; None where the first dimensions do not count rows."""
    if not io.signature.first_dimension_is_dynamic():
        return None
    return batch_limit(io.profiles, [tensor.name for tensor in io.inputs if tensor.spec.shape[0] == DYNAMIC])
