"""What can be configured: frozen dataclasses that check themselves. An option is written once, here.

Command line, environment, files and reference text are derived from the fields by `options.py`.
"""

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
    same_option,
)
from trtserve_engines.cuda.open_driver import CUDA_DRIVERS
from trtserve_engines.script import parse_script
from trtserve_engines.tensorrt.cache_options import CacheOptions
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig
from trtserve_server.gpu_config import (
    WHILE_BUILDING,
    InstanceGroupConfig as InstanceGroupConfig,
    check_batch_of_profile,
    check_instances,
)
from trtserve_server.tensor_config import (
    RANDOM as RANDOM,
    ZERO as ZERO,
    TensorConfig as TensorConfig,
    WarmupConfig as WarmupConfig,
    WarmupInput as WarmupInput,
    check_inside,
    check_runs,
)

TIMEOUT_ACTIONS = ("reject", "delay")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("default", "ISO8601")
OFF, TIMESTAMPS, TENSORS = "OFF", "TIMESTAMPS", "TENSORS"
TRACE_LEVELS = (OFF, TIMESTAMPS, TENSORS)
MODEL_CONTROL_MODES = ("none", "poll", "explicit")
MAX_MESSAGE_BYTES = 2**31 - 1
UNIX_PREFIX = "unix:"


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
        check_runs(self.warmup_runs, self.warmup)
        check_at_least(self, 0, "instances", "warmup_runs", "run_timeout_s", "nan_check_interval")
        check_instances(self.instances, self.instance_groups)
        if self.device:
            parse_device(self.device)
        if self.instance_groups and (self.instances or self.device):
            given = "instances" if self.instances else "device"
            raise ConfigError(f"instance_groups and {given} both say where instances are; leave one of them out")
        check_batch_of_profile(self.tensorrt)
        check_inside("filename", self.filename)
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


@dataclass(frozen=True)
class TraceConfig:
    """Which requests are traced, and where to."""

    file: str = option("", "file that traces are written to, as JSON; needed for every level but OFF")
    level: tuple[str, ...] = option(
        (OFF,), "what is traced of a request: OFF, TIMESTAMPS or TENSORS; may be given several times"
    )
    rate: int = option(1000, "one request in so many is traced")
    count: int = option(-1, "requests that are traced before tracing ends; -1 = no end")
    log_frequency: int = option(0, "traces in one file, which gets a number behind its name; 0 = one file for all")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "rate")
        check_at_least(self, -1, "count")
        check_at_least(self, 0, "log_frequency")
        unknown = [level for level in self.level if level not in TRACE_LEVELS]
        if unknown or not self.level or (OFF in self.level and len(set(self.level)) > 1):
            raise ConfigError(f"level = {list(self.level)}; wanted is OFF, or TIMESTAMPS, TENSORS or both")
        if self.is_on and not self.file:
            raise ConfigError(
                f"level = {list(self.level)} needs a file to write to; start the server with --trace-file"
            )

    @property
    def is_on(self) -> bool:
        """Whether any request is traced."""
        return OFF not in self.level


@dataclass(frozen=True)
class ServerConfig:
    """How the server runs, and the defaults of its models."""

    model: tuple[str, ...] = option((), "ONNX file to serve under its stem as version 1; may be given several times")
    model_repository: tuple[str, ...] = option(
        (), "folder of models, NAME/VERSION/model.onnx; may be given several times"
    )
    scripted: tuple[str, ...] = option(
        (), "model without a file, for trials: NAME:latency_ms=20:shape=-1x16:...; may be given several times"
    )
    model_control_mode: str = option(
        "none",
        "none: models are loaded at the start; poll: changes of the repositories are followed; explicit: models are"
        " loaded and unloaded on request, by RepositoryModelLoad and RepositoryModelUnload",
        choices=MODEL_CONTROL_MODES,
    )
    load_model: tuple[str, ...] = option(
        (), "model of a repository to load at the start in explicit mode, * for all; may be given several times"
    )
    repository_poll_interval_s: float = option(
        15.0, "seconds between looks at the repositories in poll mode; what changes must stay the same for one interval"
    )
    grpc_address: str = option(
        "127.0.0.1:8001", "HOST:PORT (port 0 = any free one) or unix:/PATH that gRPC listens on; several with commas"
    )
    http_address: str = option("127.0.0.1:8002", "HOST:PORT that /metrics listens on; empty = no metrics endpoint")
    backend: str = option("auto", "what executes the models", choices=BACKENDS)
    device: str = option("auto", "where they execute: auto, cpu, gpu (every GPU) or gpu:0,1")
    cuda_driver: str = option(
        "auto", "package through which CUDA is called; auto = the one that has more of it", choices=CUDA_DRIVERS
    )
    while_building: str = option(
        "wait",
        "what a model does while its TensorRT engine is built: wait, or be served by ONNX Runtime on the CPU",
        choices=WHILE_BUILDING,
    )
    engine_cache: str = same_option(CacheOptions, "engine_cache")
    engine_cache_max_bytes: int = same_option(CacheOptions, "engine_cache_max_bytes")
    engine_cache_key: str = same_option(CacheOptions, "engine_cache_key")
    default_max_batch_size: int = option(32, "max_batch_size of models that turn out to be batchable")
    instances: int = option(
        0, "instances, on each device, of each model whose configuration does not say; 0 = what suits the engine"
    )
    run_timeout_s: float = option(
        300.0, "run_timeout_s of models whose configuration does not say, in seconds; 0 = never"
    )
    max_running: int = option(0, "batches that run at once on one device, over all models; 0 = any number")
    inline_run_limit_us: int = option(
        100, "models on the CPU whose largest batch runs faster than this get no thread, in microseconds; 0 = never"
    )
    max_message_bytes: int = option(MAX_MESSAGE_BYTES, "largest message taken or sent, in bytes")
    max_inflight_bytes: int = option(
        4 << 30, "memory that requests in flight may hold, over all models; further ones are refused, in bytes"
    )
    stream_window: int = option(64, "requests in flight on one stream; more are not read until answers are taken")
    allow_client_shared_memory: bool = option(
        False, "let clients on this machine register shared memory that tensors are read from and written to"
    )
    client_shared_memory_prefix: str = option(
        "", "what the keys of system shared memory must begin with; empty = any key"
    )
    response_cache_bytes: int = option(
        64 << 20, "answers kept for models whose configuration has response_cache = true, in bytes; 0 = none"
    )
    load_threads: int = option(2, "models loaded at the same time")
    strict_readiness: bool = option(False, "ready only when every model is; otherwise a failed model leaves it ready")
    shutdown_delay_s: float = option(
        0.0, "seconds for which calls are still taken after health says NOT_SERVING, for load balancers to notice"
    )
    shutdown_quiet_s: float = option(
        0.1, "seconds without a new call after which the port is closed; until then new calls are told UNAVAILABLE"
    )
    loop_stall_s: float = option(
        0.5, "an event loop that is blocked for longer is logged with the place where it hangs, in seconds; 0 = never"
    )
    drain_timeout_s: float = option(30.0, "seconds that requests in flight get to finish at shutdown")
    reflection: bool = option(True, "offer gRPC server reflection")
    tls_certificate: str = option("", "PEM file with the server's certificate chain; empty = no TLS")
    tls_key: str = option("", "PEM file with the server's private key")
    tls_client_ca: str = option("", "PEM file with the authority that clients' certificates must come from (mTLS)")
    log_level: str = option("info", "least severe lines that are logged", choices=LOG_LEVELS)
    log_file: str = option("", "file that log lines are added to; empty = standard error")
    log_format: str = option("default", "times of log lines: as here, or in UTC by ISO 8601", choices=LOG_FORMATS)
    trace: TraceConfig = field(default_factory=TraceConfig)
    batching: BatchConfig = field(default_factory=BatchConfig)
    onnxruntime: OnnxRuntimeOptions = field(default_factory=OnnxRuntimeOptions)
    tensorrt: TensorRtConfig = field(default_factory=TensorRtConfig)

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, 1, "default_max_batch_size", "stream_window", "load_threads")
        check_at_least(self, 1, "max_message_bytes", "max_inflight_bytes")
        check_at_least(self, 0, "loop_stall_s", "shutdown_delay_s", "shutdown_quiet_s", "drain_timeout_s")
        check_at_least(self, 0, "inline_run_limit_us", "instances", "max_running", "run_timeout_s")
        check_instances(self.instances)
        check_at_least(self, 0, "engine_cache_max_bytes", "response_cache_bytes")
        if self.max_message_bytes > MAX_MESSAGE_BYTES:
            raise ConfigError(f"max_message_bytes = {self.max_message_bytes}; gRPC ends at {MAX_MESSAGE_BYTES}")
        if not self.repository_poll_interval_s > 0:
            raise ConfigError(f"repository_poll_interval_s = {self.repository_poll_interval_s}; it must be above 0")
        if self.load_model and self.model_control_mode != "explicit":
            raise ConfigError(
                f"load_model = {list(self.load_model)} needs model_control_mode = 'explicit', given is"
                f" {self.model_control_mode!r}, which loads every model"
            )
        parse_device(self.device)
        check_batch_of_profile(self.tensorrt)
        for address in self.grpc_addresses:
            if not address.startswith(UNIX_PREFIX):
                parse_address(address, "grpc_address")
            elif not address.startswith(f"{UNIX_PREFIX}/"):
                raise ConfigError(f"grpc_address = {address!r}; the path of a Unix socket must be absolute: unix:/PATH")
        for script in self.scripted:
            parse_script(script)
        if self.http_address:
            parse_address(self.http_address, "http_address")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ConfigError("tls_certificate and tls_key go together; one of them is missing")
        if self.tls_client_ca and not self.tls_certificate:
            raise ConfigError("tls_client_ca needs tls_certificate and tls_key as well")

    @property
    def grpc_addresses(self) -> list[str]:
        """Every address that gRPC listens on, as it is written."""
        return [address.strip() for address in self.grpc_address.split(",")]


def parse_address(address: str, name: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", the host of IPv6 in brackets. Raises ConfigError that names the option."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{name} = {address!r}; wanted is HOST:PORT, for example 127.0.0.1:8001 or [::1]:8001")
    return host.strip("[]"), int(port)
