"""How TensorRT engines are made, kept and run, as the one who opens an engine says it."""

from __future__ import annotations

from dataclasses import dataclass, field

from trtserve_engines.tensorrt.cache_options import CacheOptions
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig


@dataclass(frozen=True)
class TensorRtOptions:
    """`cuda_driver` is one of CUDA_DRIVERS; `instances` are those that one GPU must have memory for."""

    config: TensorRtConfig = field(default_factory=TensorRtConfig)
    cache: CacheOptions = field(default_factory=CacheOptions)
    cuda_driver: str = "auto"
    instances: int = 1
