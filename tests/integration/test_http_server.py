"""The HTTP endpoint: its probes, and clients that hold it up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from urllib.request import urlopen

import pytest

from tests.support.oip_client import WAIT_S
from trtserve_server.http_server import LIVE, MAX_CONNECTIONS, READY, HttpServer


@contextmanager
def serving(is_ready: Callable[[], bool] = lambda: True, **options: float) -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1:0", lambda: b"up 1\n", is_ready, **options)
    yield server
    server.close()


def connected(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), WAIT_S)


def answer(server: HttpServer, path: str) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def scrape(server: HttpServer) -> bytes:
    with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=WAIT_S) as response:
        body: bytes = response.read()
    return body


@pytest.mark.parametrize("is_ready", [True, False])
def test_the_probes_say_200_for_yes_and_400_for_no(is_ready: bool) -> None:
    with serving(is_ready=lambda: is_ready) as server:
        assert answer(server, LIVE) == (200, b"")
        assert answer(server, READY) == (200 if is_ready else 400, b"")
        assert answer(server, READY + "?verbose") == answer(server, READY)


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
