"""The composition root: the only place that constructs the server's parts and wires them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from trtserve_engines.backend_choice import choose_backend
from trtserve_engines.config import ConfigError
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.look_at_machine import look_at_machine
from trtserve_protos import health, oip, row_inference
from trtserve_server.config import ServerConfig
from trtserve_server.http_server import HttpServer
from trtserve_server.listening import listen
from trtserve_server.log_output import LogOutput
from trtserve_server.loop_watch import LoopWatch
from trtserve_server.metrics import Metrics
from trtserve_server.models.catalogue import State
from trtserve_server.models.control import ModelControl
from trtserve_server.models.registry import Registry
from trtserve_server.rpc.health import HealthService
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.intake import Intake
from trtserve_server.rpc.log_settings import LogSettingsService
from trtserve_server.rpc.oip import OipService
from trtserve_server.rpc.reflection import ReflectionService
from trtserve_server.rpc.repository import RepositoryService
from trtserve_server.rpc.rows import RowInferenceService
from trtserve_server.rpc.shared_memory import shared_memory_calls
from trtserve_server.rpc.stream import InferStream
from trtserve_server.rpc.trace_setting import TraceSettingService
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.reactor import AsyncioReactor
from trtserve_server.security import server_credentials
from trtserve_server.shared_memory.offer import SharedMemoryOffer
from trtserve_server.statistics import LoopStatistics
from trtserve_server.trace_file import TraceWriter
from trtserve_server.tracing import Tracer
from trtserve_server.transport.call import GrpcServer
from trtserve_server.transport.choice import make_server

log = logging.getLogger(__name__)

_MAX_PENDING = 1_000_000
"""Calls that gRPC holds until the event loop takes them."""

_BUILDS = 16
"""Models that build an engine or wait to; of those for one GPU one builds."""

_HANDSHAKE_MS = 10_000
"""How long a connection may take to begin. What is dropped meanwhile keeps its descriptor until then."""

_SILENCE_MS, _ECHO_MS = 60_000, 60_000
"""How long a connection may say nothing until it is asked whether it lives, and how long it may take to say so.

A machine that loses its power closes nothing; and gRPC's older listener misses the end of some connections that begin
a call and are closed before they are taken. Both would keep their descriptor and their calls for two hours.
"""

_LAST_WORDS_S = 1.0
"""For calls that are no inference, such as of statistics, once everything that was accepted is answered."""


class App:
    """A whole server. Made, started and stopped on one running asyncio loop.

    `output` is the log's, where this server has one of its own and may change it.
    """

    def __init__(self, config: ServerConfig, output: LogOutput | None = None) -> None:
        self.config = config
        _check_backend(config)
        self._credentials = server_credentials(config)
        reactor = AsyncioReactor()
        host = Host(reactor, max_running=config.max_running, max_inflight_bytes=config.max_inflight_bytes)
        host.on_device_lost = self._lose_device
        self.device_lost = asyncio.Event()
        """Set when a device cannot be used any more by this process, which then has to end."""
        self._executors = (
            ThreadPoolExecutor(config.load_threads, "load"),
            ThreadPoolExecutor(1, "repository"),
            ThreadPoolExecutor(_BUILDS, "build"),
        )
        self.registry = Registry(config, host, *self._executors)
        self.registry.on_change = self._publish_health
        self.control = ModelControl(config, self.registry, reactor, self._executors[1])
        self._repository = RepositoryService(self.registry, self.control)
        self._health = HealthService()
        self._reflection = ReflectionService((oip.SERVICE, row_inference.SERVICE, health.SERVICE))
        self._traces = TraceWriter(ThreadPoolExecutor(1, "traces"))
        self._tracer = Tracer(config.trace, self._traces.write)
        self._shared_memory = SharedMemoryOffer(config)
        self.codec = InferCodec(self.registry, self._tracer, self._shared_memory.regions, config.max_message_bytes)
        self._intake = Intake()
        self._oip = OipService(
            self.registry,
            self.codec,
            self._intake,
            lambda: self.ready,
            config.stream_window,
            shared_memory=self._shared_memory.extensions,
            messages={
                **self._repository.messages(),
                **TraceSettingService(self._tracer, self.registry).messages(),
                **LogSettingsService(output or LogOutput(config)).messages(),
                **shared_memory_calls(self._shared_memory),
            },
        )
        self._rows = RowInferenceService(self.codec, self._intake, host.budget, config.stream_window)
        self._serving = False
        self._http: HttpServer | None = None
        self._said_ready = False  # what was published last, for other threads
        self._loop_statistics = LoopStatistics()
        self._loop_watch: LoopWatch | None = None
        self.grpc_ports: list[int] = []
        """The port of each gRPC address; 1 for a Unix socket."""

    @property
    def ready(self) -> bool:
        """Whether requests can be sent: loading is over, no stop has begun, and enough models serve."""
        if not self._serving or self.device_lost.is_set():
            return False
        ready = [entry.state is State.READY for entry in self.registry.entries() if entry.wanted]
        if not ready:
            return self.config.model_control_mode != "none"  # models may come later
        return all(ready) if self.config.strict_readiness else any(ready)

    @property
    def grpc_port(self) -> int:
        """The port of the first gRPC address; 0 before the server listens."""
        return self.grpc_ports[0] if self.grpc_ports else 0

    @property
    def streams(self) -> Collection[InferStream]:
        """The streams that are open."""
        return self._oip.streams

    @property
    def http_port(self) -> int:
        """The port of the HTTP endpoint; 0 where there is none."""
        return self._http.port if self._http else 0

    async def start(self) -> None:
        """Listens, not yet ready; loads and warms up every model; is ready. Raises ConfigError."""
        if self.config.http_address:
            metrics = Metrics(self.registry.models, self.registry.builds, self._loop_statistics)
            self._http = HttpServer(self.config.http_address, metrics.text, lambda: self._said_ready)
        self._server = self._make_server()
        self.grpc_ports = await self._listen()
        await self._server.start()
        loaded = asyncio.Event()
        self.control.start(loaded.set)
        await loaded.wait()
        if self.config.loop_stall_s:  # not sooner: while libraries are loaded everything is late
            self._loop_watch = LoopWatch(self._loop_statistics, self.config.loop_stall_s)
        self._serving = True
        self._publish_health()

    async def stop(self, drain_timeout_s: float) -> bool:
        """Says that it is about to go, takes calls for `shutdown_delay_s` more, then refuses what is new, answers what
        was accepted within the time, and ends everything; False if some was lost. What a peer has not sent whole was
        not accepted, and nobody waits for it.
        """
        self._serving = False
        self._publish_health()
        await asyncio.sleep(self.config.shutdown_delay_s)
        self._health.end()
        self._reflection.end()
        self.control.stop()
        self._repository.end()
        self._intake.close()
        self._oip.stop_streams()
        answered = await self._intake.empty(drain_timeout_s)
        # gRPC itself would cancel what comes in while it stops, and the caller could not tell why.
        await self._intake.quiet(min(self.config.shutdown_quiet_s, drain_timeout_s))
        self.registry.drain(lambda: None)
        # Once only: gRPC crashes where one stop outlives another. It waits for peers that say nothing, too.
        await self._server.stop(_LAST_WORDS_S if answered else 0)
        await self.close()
        return answered

    async def close(self) -> None:
        """Ends everything at once: what still runs gets no answer."""
        self.control.stop()
        self.registry.stop()
        self._tracer.flush()
        await self._server.stop(0)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.registry.close, 1.0)
        self._shared_memory.close()
        await loop.run_in_executor(None, self._traces.close)
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
        if self._loop_watch:
            self._loop_watch.close()
        if self._http:
            await loop.run_in_executor(None, self._http.close)

    def _lose_device(self, reason: str) -> None:
        if not self.device_lost.is_set():
            log.critical("a device is lost to this process: %s", reason)
            self.device_lost.set()
            self._publish_health()

    def _make_server(self) -> GrpcServer:
        handlers = {**self._oip.handlers(), **self._rows.handlers(), **self._health.handlers()}
        if self.config.reflection:
            handlers |= self._reflection.handlers()
        size = self.config.max_message_bytes
        return make_server(
            self.config.transport,
            handlers,
            [
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", size),
                # Also what holds back a client that begins calls and resets them at once, which costs it nothing.
                ("grpc.max_concurrent_streams", self.config.max_calls_per_connection),
                # It counts calls that are answered but not yet freed, and refuses those of clients who know of less.
                ("grpc.http.overload_protection", 0),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
                # gRPC's own five minutes would end connections that a client's keepalive is there to keep.
                ("grpc.http2.min_ping_interval_without_data_ms", self.config.min_ping_interval_ms),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", _SILENCE_MS),
                ("grpc.keepalive_timeout_ms", _ECHO_MS),
                ("grpc.http2.ping_timeout_ms", _ECHO_MS),
                ("grpc.http2.max_pings_without_data", 0),  # any number
                # Two servers must not share a port unnoticed: a port in use is an error.
                ("grpc.so_reuseport", 0),
                # What waits for the event loop is bounded by us, with a reason; gRPC would cancel it without one.
                ("grpc.server.max_pending_requests", _MAX_PENDING),
                ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
            ],
        )

    async def _listen(self) -> list[int]:
        try:
            return [listen(self._server, address, self._credentials) for address in self.config.grpc_addresses]
        except ConfigError:
            if self._http:
                self._http.close()
            # Addresses that were bound before the one that cannot be: gRPC gives them back only once it has begun.
            await self._server.start()
            await self._server.stop(0)
            raise

    def _publish_health(self) -> None:
        self._said_ready = self.ready
        ready = "SERVING" if self._said_ready else "NOT_SERVING"
        statuses = dict.fromkeys(("", oip.SERVICE, row_inference.SERVICE, health.SERVICE), ready)
        if not self._serving:  # at the start and the end, when every one of thousands of models changes its state
            self._health.update(statuses | dict.fromkeys(self.registry.names(), "NOT_SERVING"))
            return
        for entry in self.registry.entries():
            serving = entry.state is State.READY and not self.device_lost.is_set()
            key = entry.name
            if serving or key not in statuses:
                statuses[key] = "SERVING" if serving else "NOT_SERVING"
        self._health.update(statuses)


def _check_backend(config: ServerConfig) -> None:
    try:
        choose_backend(config.backend, config.device, look_at_machine(config.cuda_driver))
    except BackendUnavailableError as error:
        raise ConfigError(str(error)) from None
