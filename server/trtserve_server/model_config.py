"""What can be configured of one model: its batching and priorities, its instances, and what an ensemble is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trtserve_engines.backend_choice import parse_device
from trtserve_engines.config import (
    BACKENDS,
    ConfigError,
    OnnxRuntimeOptions,
    check_at_least,
    check_choices,
    mapping,
    option,
)
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig
from trtserve_server.gpu_config import InstanceGroupConfig, check_batch_of_profile, check_instances
from trtserve_server.tensor_config import TensorConfig, WarmupConfig, check_inside, check_runs

TIMEOUT_ACTIONS = ("reject", "delay")


@dataclass(frozen=True)
class BatchConfig:
    """When requests of one model share a run."""

    preferred_batch_sizes: tuple[int, ...] = option((), "sizes that are cut as soon as they are reached, in rows")
    max_queue_delay_us: int = option(
        0, "how long an idle instance waits for more rows, counted from the oldest request, in microseconds"
    )
    preserve_ordering: bool = option(
        False, "answer the requests of one stream in their order; otherwise as they complete"
    )
    max_queue_size: int = option(10_000, "requests that may wait; further ones are refused at once")
    max_queue_bytes: int = option(1 << 30, "memory that waiting requests may hold; further ones are refused, in bytes")
    default_timeout_us: int = option(
        0, "how long a request may wait for its run to start, in microseconds; 0 = for ever"
    )
    timeout_action: str = option(
        "reject",
        "what becomes of a request that has waited so long: refused, or put behind all others of its priority",
        choices=TIMEOUT_ACTIONS,
    )
    allow_timeout_override: bool = option(True, "a request's own timeout holds where it is shorter")
    priority_levels: int = option(0, "priorities that requests may have, 1 the most urgent; 0 = any number")
    default_priority_level: int = option(1, "priority of requests that have none, or one beyond priority_levels")

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, 0, "max_queue_delay_us", "default_timeout_us", "priority_levels")
        check_at_least(self, 1, "max_queue_size", "max_queue_bytes", "default_priority_level")
        if 0 < self.priority_levels < self.default_priority_level:
            raise ConfigError(
                f"default_priority_level = {self.default_priority_level} is beyond"
                f" priority_levels = {self.priority_levels}"
            )
        if any(size < 1 for size in self.preferred_batch_sizes):
            raise ConfigError(f"preferred_batch_sizes = {list(self.preferred_batch_sizes)}; each must be at least 1")


@dataclass(frozen=True)
class LevelConfig:
    """What holds for the requests of one priority level instead of the model's `batching` options."""

    level: int = option(1, "the priority that it is for")
    max_queue_size: int = option(0, "requests of this priority that may wait; 0 = as many as in the whole queue")
    default_timeout_us: int = option(0, "how long one may wait for its run to start, in microseconds; 0 = for ever")
    timeout_action: str = option("reject", "what becomes of one that has waited so long", choices=TIMEOUT_ACTIONS)
    allow_timeout_override: bool = option(True, "a request's own timeout holds where it is shorter")

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, 1, "level")
        check_at_least(self, 0, "max_queue_size", "default_timeout_us")


@dataclass(frozen=True)
class StepConfig:
    """A step of an ensemble: a model, and how its tensors are called in the ensemble."""

    model: str = option("", "the model that the step runs")
    version: int = option(0, "its version; 0 = the newest that serves")
    inputs: Mapping[str, str] = mapping("each input of the model to the ensemble's tensor that it takes")
    outputs: Mapping[str, str] = mapping("outputs of the model to the ensemble's tensors that they make")

    def __post_init__(self) -> None:
        check_at_least(self, 0, "version")
        if not self.model:
            raise ConfigError("a step names no model; wanted is model = 'NAME'")

    @property
    def asked_version(self) -> str:
        """The version as it is asked for; "" = the newest that serves."""
        return str(self.version) if self.version else ""


@dataclass(frozen=True)
class ModelConfig:
    """How one model is served. What is absent is completed from the ONNX graph and the server's defaults."""

    name: str = option("", "the model's name; must be that of its folder")
    versions: str = option("latest", 'versions to serve: "latest", "latest:N", "all" or a list such as "1,3"')
    filename: str = option("model.onnx", "the model file inside each version's folder")
    max_batch_size: int | None = option(
        None, "rows in a batch; 0 = never batch; absent = decided by a self-test, with default_max_batch_size"
    )
    inputs: tuple[TensorConfig, ...] = option((), "what is said of inputs")
    outputs: tuple[TensorConfig, ...] = option((), "what is said of outputs")
    backend: str = option("", "what executes the model; empty = the server's choice", choices=("", *BACKENDS))
    device: str = option("", "where it executes: auto, cpu, gpu or gpu:0,1; empty = the server's choice")
    instances: int = option(0, "batches that may run at the same time, on each device; 0 = the server's number")
    instance_groups: tuple[InstanceGroupConfig, ...] = option(
        (), "instances by device, where the devices are to have different numbers of them"
    )
    run_timeout_s: float = option(
        300.0, "seconds after which a run counts as hanging: its requests fail, its instance is replaced; 0 = never"
    )
    levels: tuple[LevelConfig, ...] = option((), "policies of single priority levels")
    nan_check_interval: int = option(
        100,
        "every how many batches of an instance the outputs are searched for NaN, which is counted and logged;"
        " 1 = every one, 0 = never",
    )
    warmup_runs: int = option(1, "runs with made-up data per instance before the model is ready")
    ensemble: tuple[StepConfig, ...] = option((), "models to run in place of a file; this one is then an ensemble")
    response_cache: bool = option(False, "answer what was asked before from the server's response cache")
    warmup: tuple[WarmupConfig, ...] = option((), "requests that are run before the model is ready as well")
    batching: BatchConfig = field(default_factory=BatchConfig)
    onnxruntime: OnnxRuntimeOptions = field(default_factory=OnnxRuntimeOptions)
    tensorrt: TensorRtConfig = field(default_factory=TensorRtConfig)

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, 0, "instances", "warmup_runs", "run_timeout_s", "nan_check_interval")
        check_instances(self.instances, self.instance_groups)
        if self.device:
            parse_device(self.device)
        if self.instance_groups and (self.instances or self.device):
            given = "instances" if self.instances else "device"
            raise ConfigError(f"instance_groups and {given} both say where instances are; leave one of them out")
        check_batch_of_profile(self.tensorrt)
        check_inside("filename", self.filename)
        check_runs(self.warmup_runs, self.warmup)
        known = self.batching.priority_levels
        for level in self.levels:
            if level.level > known:
                raise ConfigError(f"levels has level = {level.level}, which is beyond priority_levels = {known}")
        if self.max_batch_size is not None:
            check_at_least(self, 0, "max_batch_size")
            too_large = [size for size in self.batching.preferred_batch_sizes if size > self.max_batch_size > 0]
            if too_large:
                raise ConfigError(
                    f"preferred_batch_sizes has {too_large[0]}, which is above max_batch_size = {self.max_batch_size}"
                )
