"""How an engine is run: frozen options with help text, checking themselves. How it is built is in build_config.py."""

from __future__ import annotations

from dataclasses import dataclass

from trtserve_engines.config import ConfigError, check_at_least, option

MAX_PIPELINE_DEPTH = 4


@dataclass(frozen=True)
class RuntimeConfig:
    """How TensorRT engines are run on a GPU."""

    cuda_graphs: bool = option(True, "launch each batch as one CUDA graph, where model and driver allow it")
    batch_buckets: tuple[int, ...] = option(
        (), "batch sizes that get a CUDA graph, others are padded to the next; absent = 1, 2, 4, 8 ... and the largest"
    )
    pipeline_depth: int = option(
        2, "batches that an instance has on the GPU at once; with 2, copies of one overlap the other's compute"
    )
    wait_timeout_s: float = option(60.0, "time after which a batch that is not finished means that the GPU hangs")
    memory_reserve_bytes: int = option(64 << 20, "device memory that loading a model leaves free")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "pipeline_depth")
        check_at_least(self, 0, "memory_reserve_bytes")
        if self.pipeline_depth > MAX_PIPELINE_DEPTH:
            raise ConfigError(f"pipeline_depth = {self.pipeline_depth}; wanted is 1 to {MAX_PIPELINE_DEPTH}")
        if not self.wait_timeout_s > 0:  # so that NaN is refused too
            raise ConfigError(f"wait_timeout_s = {self.wait_timeout_s}; it must be above 0")
        if any(bucket < 1 for bucket in self.batch_buckets):
            raise ConfigError(f"batch_buckets = {list(self.batch_buckets)}; each must be at least 1")
