"""The parts of the configuration that exist because of GPUs: instances by device, and what TensorRT may be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trtserve_engines.backend_choice import parse_device
from trtserve_engines.config import ConfigError, check_at_least, option
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig

WHILE_BUILDING = ("wait", "serve-on-cpu")
MAX_INSTANCES = 1024
"""Of one model on a device: each is a thread, and making too many holds up everyone else."""


@dataclass(frozen=True)
class InstanceGroupConfig:
    """Instances of a model on the same devices."""

    count: int = option(1, "instances on each of the devices")
    device: str = option("", "where they are: cpu, gpu or gpu:0,1; empty = the model's device")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "count")
        if self.device:
            parse_device(self.device)


def check_instances(instances: int, groups: Sequence[InstanceGroupConfig] = ()) -> None:
    """Raises ConfigError where a model would have more instances than a server can make."""
    total = instances + sum(group.count for group in groups)
    if total > MAX_INSTANCES:
        raise ConfigError(f"instances = {total}; a model may have at most {MAX_INSTANCES}")


def check_batch_of_profile(tensorrt: TensorRtConfig) -> None:
    """A server derives profiles from the batches that it makes itself."""
    for name in ("max_batch_size", "preferred_batch_size"):
        if getattr(tensorrt, name) != getattr(TensorRtConfig, name):
            meant = {"max_batch_size": "max_batch_size", "preferred_batch_size": "batching.preferred_batch_sizes"}[name]
            raise ConfigError(f"tensorrt.{name} follows from {meant} in a server; set that")
