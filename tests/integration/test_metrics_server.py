"""The HTTP endpoint for metrics against clients that hold it up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.request import urlopen

from tests.support.oip_client import WAIT_S
from trtserve_server.metrics_server import MAX_CONNECTIONS, MetricsServer


@contextmanager
def serving(**options: float) -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1:0", lambda: b"up 1\n", **options)
    yield server
    server.close()


def connected(server: MetricsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), WAIT_S)


def scrape(server: MetricsServer) -> bytes:
    with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=WAIT_S) as response:
        body: bytes = response.read()
    return body


def test_a_client_that_says_nothing_or_half_a_request_is_dropped() -> None:
    with serving(patience_s=0.05) as server, connected(server) as silent, connected(server) as halting:
        halting.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        assert silent.recv(1) == b""
        assert halting.recv(1) == b""
        assert scrape(server) == b"up 1\n"


def test_clients_that_say_nothing_take_a_bounded_number_of_threads() -> None:
    before = threading.active_count()
    with serving() as server, ExitStack() as connections:
        for _ in range(MAX_CONNECTIONS):
            connections.enter_context(connected(server))
        with connected(server) as refused:
            assert refused.recv(1) == b""
        assert threading.active_count() <= before + 1 + MAX_CONNECTIONS
        connections.close()
        end = time.monotonic() + WAIT_S
        answer = b""
        while not answer and time.monotonic() < end:
            try:
                answer = scrape(server)
            except OSError:  # the places are given back one by one
                continue
        assert answer == b"up 1\n"
