"""What can be configured: frozen dataclasses that check themselves. An option of the server is written once, here.

Those of single models stand in `model_config.py`, and their parts in two further files; all are had from here. Command
line, environment, files and reference text are derived from the fields by `options.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trtserve_engines.backend_choice import parse_device
from trtserve_engines.config import (
    BACKENDS,
    ConfigError,
    OnnxRuntimeOptions,
    check_at_least,
    check_choices,
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
from trtserve_server.model_config import (
    BatchConfig as BatchConfig,
    LevelConfig as LevelConfig,
    ModelConfig as ModelConfig,
    StepConfig as StepConfig,
)
from trtserve_server.tensor_config import (
    RANDOM as RANDOM,
    ZERO as ZERO,
    TensorConfig as TensorConfig,
    WarmupConfig as WarmupConfig,
    WarmupInput as WarmupInput,
)

LOG_LEVELS = ("debug", "info", "warning", "error")
TRANSPORTS = ("auto", "asyncio")
LOG_FORMATS = ("default", "ISO8601")
OFF, TIMESTAMPS, TENSORS = "OFF", "TIMESTAMPS", "TENSORS"
TRACE_LEVELS = (OFF, TIMESTAMPS, TENSORS)
MODEL_CONTROL_MODES = ("none", "poll", "explicit")
_MOST_OF_GRPC = 2**31 - 1
MAX_MESSAGE_BYTES = _MOST_OF_GRPC
UNIX_PREFIX = "unix:"


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
    http_address: str = option("127.0.0.1:8002", "HOST:PORT of the HTTP endpoint, for metrics and probes; empty = none")
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
    max_running: int = option(0, "instances that run at once on one device, over all models; 0 = any number")
    inline_run_limit_us: int = option(
        100,
        "batches on the CPU that run faster than this are not handed to a thread, in microseconds; 0 = hand over all",
    )
    max_message_bytes: int = option(MAX_MESSAGE_BYTES, "largest message taken or sent, in bytes")
    max_inflight_bytes: int = option(
        4 << 30, "memory that requests in flight may hold, over all models; further ones are refused, in bytes"
    )
    min_ping_interval_ms: int = option(
        5_000, "how soon a client's keepalive pings may follow each other while nothing else is sent, in milliseconds"
    )
    max_calls_per_connection: int = option(
        4096, "calls under way on one connection; a client holds back further ones until one has ended"
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
    transport: str = option(
        "auto", "what carries gRPC: its completion queue where grpcio shows it, or always grpc.aio", choices=TRANSPORTS
    )
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
        check_at_least(self, 1, "max_message_bytes", "max_inflight_bytes", "max_calls_per_connection")
        check_at_least(self, 0, "loop_stall_s", "shutdown_delay_s", "shutdown_quiet_s", "drain_timeout_s")
        check_at_least(self, 0, "inline_run_limit_us", "instances", "max_running", "run_timeout_s")
        check_instances(self.instances)
        check_at_least(self, 0, "engine_cache_max_bytes", "response_cache_bytes", "min_ping_interval_ms")
        for name in ("max_message_bytes", "max_calls_per_connection", "min_ping_interval_ms"):
            if getattr(self, name) > _MOST_OF_GRPC:
                raise ConfigError(f"{name} = {getattr(self, name)}; gRPC ends at {_MOST_OF_GRPC}")
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
