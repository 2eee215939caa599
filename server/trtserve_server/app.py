"""The composition root: the only place that constructs the server's parts and wires them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import grpc.aio

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import BackendUnavailableError
from trtserve_engines.open_engine import choose_backend
from trtserve_protos import health, oip, row_inference
from trtserve_server.config import ServerConfig, parse_address
from trtserve_server.log_output import LogOutput
from trtserve_server.loop_watch import LoopWatch
from trtserve_server.metrics import MetricsServer
from trtserve_server.models.control import ModelControl
from trtserve_server.models.registry import Registry, State
from trtserve_server.rpc import gone_callers
from trtserve_server.rpc.health import HealthService
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.intake import Intake
from trtserve_server.rpc.log_settings import LogSettingsService
from trtserve_server.rpc.oip import OipService
from trtserve_server.rpc.reflection import ReflectionService
from trtserve_server.rpc.repository import RepositoryService
from trtserve_server.rpc.rows import RowInferenceService
from trtserve_server.rpc.stream import InferStream
from trtserve_server.rpc.trace_setting import TraceSettingService
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.reactor import AsyncioReactor
from trtserve_server.security import server_credentials
from trtserve_server.statistics import LoopStatistics
from trtserve_server.trace_file import TraceWriter
from trtserve_server.tracing import Tracer


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
        self._executors = ThreadPoolExecutor(config.load_threads, "load"), ThreadPoolExecutor(1, "repository")
        self.registry = Registry(config, host, *self._executors)
        self.registry.on_change = self._publish_health
        self.control = ModelControl(config, self.registry, reactor, self._executors[1])
        self._repository = RepositoryService(self.registry, self.control)
        self._health = HealthService()
        self._reflection = ReflectionService((oip.SERVICE, row_inference.SERVICE, health.SERVICE))
        self._traces = TraceWriter(ThreadPoolExecutor(1, "traces"))
        self._tracer = Tracer(config.trace, self._traces.write)
        self.codec = InferCodec(self.registry, self._tracer)
        self._intake = Intake()
        self._oip = OipService(
            self.registry,
            self.codec,
            self._intake,
            lambda: self.ready,
            config.stream_window,
            messages={
                **self._repository.messages(),
                **TraceSettingService(self._tracer, self.registry).messages(),
                **LogSettingsService(output or LogOutput(config)).messages(),
            },
        )
        self._rows = RowInferenceService(self.codec, self._intake, config.stream_window)
        self._serving = False
        self._metrics: MetricsServer | None = None
        self._loop_statistics = LoopStatistics()
        self._loop_watch: LoopWatch | None = None
        self.grpc_port = 0

    @property
    def ready(self) -> bool:
        """Whether requests can be sent: loading is over, no stop has begun, and enough models serve."""
        if not self._serving:
            return False
        ready = [entry.state is State.READY for entry in self.registry.entries() if entry.wanted]
        if not ready:
            return self.config.model_control_mode != "none"  # models may come later
        return all(ready) if self.config.strict_readiness else any(ready)

    @property
    def streams(self) -> Collection[InferStream]:
        """The streams that are open."""
        return self._oip.streams

    @property
    def http_port(self) -> int:
        """The port of /metrics; 0 where there is none."""
        return self._metrics.port if self._metrics else 0

    async def start(self) -> None:
        """Listens, not yet ready; loads and warms up every model; is ready. Raises ConfigError."""
        if self.config.http_address:
            self._metrics = MetricsServer(self.config.http_address, self.registry.models, self._loop_statistics)
        self._server = self._make_server()
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
        was accepted within the time, and ends everything; False if some was lost.
        """
        self._serving = False
        self._publish_health()
        await asyncio.sleep(self.config.shutdown_delay_s)
        end = time.monotonic() + drain_timeout_s
        self._health.end()
        self._reflection.end()
        self.control.stop()
        self._repository.end()
        self._intake.close()
        self._oip.end_streams()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._intake.empty(), drain_timeout_s)
        # gRPC itself would cancel what comes in while it stops, and the caller could not tell why.
        await self._intake.quiet(min(self.config.shutdown_quiet_s, drain_timeout_s))
        drained = asyncio.Event()
        self.registry.drain(drained.set)
        # Once only: gRPC crashes where one stop outlives another.
        await self._server.stop(max(0.0, end - time.monotonic()))
        in_time = time.monotonic() < end or drain_timeout_s == 0
        await self.close()
        return in_time and drained.is_set()

    async def close(self) -> None:
        """Ends everything at once: what still runs gets no answer."""
        self.control.stop()
        self.registry.stop()
        self._tracer.flush()
        await self._server.stop(0)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.registry.close, 1.0)
        await loop.run_in_executor(None, self._traces.close)
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
        if self._loop_watch:
            self._loop_watch.close()
        if self._metrics:
            await loop.run_in_executor(None, self._metrics.close)

    def _make_server(self) -> grpc.aio.Server:
        gone_callers.install()
        size = self.config.max_message_bytes
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", size),
                # Two servers must not share a port unnoticed: a port in use is an error.
                ("grpc.so_reuseport", 0),
            ]
        )
        handlers = [self._oip.handler(), self._rows.handler(), self._health.handler()]
        if self.config.reflection:
            handlers += self._reflection.handlers()
        server.add_generic_rpc_handlers(tuple(handlers))
        self.grpc_port = self._listen(server)
        return server

    def _listen(self, server: grpc.aio.Server) -> int:
        address = self.config.grpc_address
        problem = _bind_problem(*parse_address(address, "grpc_address"))
        try:
            if not problem and self._credentials:
                return server.add_secure_port(address, self._credentials)
            if not problem:
                return server.add_insecure_port(address)
        except RuntimeError as error:
            problem = str(error)
        if self._metrics:
            self._metrics.close()
        raise ConfigError(
            f"grpc_address = {address!r} cannot be listened on: {problem};"
            " stop what listens there or choose another with --grpc-address"
        )

    def _publish_health(self) -> None:
        ready = "SERVING" if self.ready else "NOT_SERVING"
        statuses = {"": ready, oip.SERVICE: ready, row_inference.SERVICE: ready, health.SERVICE: ready}
        for entry in self.registry.entries():
            serving = entry.state is State.READY and self._serving
            key = entry.name
            if serving or key not in statuses:
                statuses[key] = "SERVING" if serving else "NOT_SERVING"
        self._health.update(statuses)


def _bind_problem(host: str, port: int) -> str:
    """Why no address of the host can be bound, "" where one can: gRPC itself writes the reason to its log alone."""
    problem = ""
    try:
        for family, kind, protocol, _, target in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(target)
                return ""
            except OSError as error:
                problem = problem or os.strerror(error.errno or 0)
    except socket.gaierror as error:
        problem = str(error.strerror)
    return problem


def _check_backend(config: ServerConfig) -> None:
    try:
        choose_backend(config.backend, config.device)
    except BackendUnavailableError as error:
        raise ConfigError(str(error)) from None
