"""A real server in this process, on a thread with an event loop of its own, on ports that the system chose."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.request import urlopen

import uvloop

from trtserve_server.app import App
from trtserve_server.config import ServerConfig


class RunningServer:
    """Starts in its constructor, which returns when every model is READY or UNAVAILABLE.

    With `loaded` = False it returns as soon as the server listens.
    """

    def __init__(self, *, loaded: bool = True, **options: Any) -> None:
        ports = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
        # Most tests have no more calls to be refused when they stop their server.
        self.config = ServerConfig(**{**ports, "shutdown_quiet_s": 0.0, **options})
        self._loaded = loaded
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="server")
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    @property
    def url(self) -> str:
        """HOST:PORT of gRPC."""
        return f"127.0.0.1:{self.app.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Where the metrics are."""
        return f"http://127.0.0.1:{self.app.http_port}/metrics"

    def http_status(self, path: str) -> int:
        """The status with which the HTTP endpoint answers."""
        connection = HTTPConnection("127.0.0.1", self.app.http_port, timeout=20)
        with closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status

    def metrics(self) -> str:
        """What the metrics endpoint gives."""
        with urlopen(self.metrics_url, timeout=20) as response:
            text: str = response.read().decode()
        return text

    def stop(self, drain_timeout_s: float = 10.0) -> bool:
        """Drains and ends the server; False where requests were lost. May be called again."""
        if not self._thread.is_alive():
            return True
        future = asyncio.run_coroutine_threadsafe(self.app.stop(drain_timeout_s), self.loop)
        complete = future.result()
        self.loop.call_soon_threadsafe(self._finished.set)
        self._thread.join()
        return complete

    def run_on_loop(self, function: Any, *arguments: Any) -> Any:
        """Calls `function` on the server's thread and gives what it returned."""

        async def call() -> Any:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Asks `condition` on the server's thread, once a turn of its loop, until it holds."""

        async def turn() -> None:
            while not condition():
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(turn(), timeout_s), self.loop).result()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        try:
            self.app = App(self.config)
            self._starting = asyncio.ensure_future(self.app.start())
            while not (self._loaded or self.app.grpc_port or self._starting.done()):
                await asyncio.sleep(0)
            if self._loaded or self._starting.done():
                await self._starting
        except BaseException as error:
            self._error = error
            return
        finally:
            self._started.set()
        await self._finished.wait()
