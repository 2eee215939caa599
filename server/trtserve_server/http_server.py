"""The HTTP endpoint: the metrics and Triton's two probes, for a bounded number of clients at a time. No inference."""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_server.config import parse_address

MAX_CONNECTIONS = 32
"""At a time: each has a thread, of which it must not need more than scrapes do."""

METRICS, LIVE, READY = "/metrics", "/v2/health/live", "/v2/health/ready"

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_POLL_S = 0.05  # how soon the thread notices that it shall end
_PATIENCE_S = 10.0
"""What a client has for each step of its request; then its connection is closed."""


class HttpServer:
    """Answers on threads of its own, on which it calls `metrics` for their text and `is_ready` for the probe.

    Raises ConfigError where the address cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        metrics: Callable[[], bytes],
        is_ready: Callable[[], bool],
        patience_s: float = _PATIENCE_S,
    ) -> None:
        host, port = parse_address(address, "http_address")
        try:
            self._server = _BoundedServer((host, port), _handler_class(metrics, is_ready, patience_s))
        except OSError as error:
            raise ConfigError(
                f"http_address = {address!r} cannot be listened on: {error.strerror};"
                " free the port or choose another with --http-address"
            ) from error
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_S,), name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_address[1]

    def close(self) -> None:
        """Ends the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _BoundedServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2 * MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the base class's look-up of the host's name, which waits for a name server."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives the connection a thread, or closes it where as many are open as may be."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread of a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


def _handler_class(
    metrics: Callable[[], bytes], is_ready: Callable[[], bool], patience_s: float
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = patience_s

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == METRICS:
                self._answer(200, metrics())
            elif path == LIVE:
                self._answer(200)
            elif path == READY:
                self._answer(200 if is_ready() else 400)  # as the Open Inference Protocol has it
            else:
                self.send_error(404, f"here are {METRICS}, {LIVE} and {READY}; inference is gRPC's alone")

        def _answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            if body:
                self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Scrapes and probes are not logged."""

    return Handler
