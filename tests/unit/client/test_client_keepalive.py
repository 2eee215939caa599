"""Keepalive: a server that is connected and silent, as behind a broken network, is found out within the time set."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from trtserve_client import ChannelOptions, Client, Unavailable

WAIT_S = 30.0


class FreezingNetwork:
    """Forwards what client and server say until it is frozen; then both stay connected and hear nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        self._frozen = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Lets nothing more through."""
        self._frozen.set()

    def close(self) -> None:
        """Ends every connection."""
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._port))
        self._sockets += [near, far]
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(1 << 16):
            if self._frozen.is_set():
                return
            target.sendall(data)


@pytest.fixture
def network(server: Any) -> Iterator[FreezingNetwork]:
    made = FreezingNetwork(server.port)
    yield made
    made.close()


def test_a_server_that_is_heard_no_more_is_unavailable(server: Any, network: FreezingNetwork) -> None:
    def answer_never(request: bytes, context: grpc.ServicerContext) -> bytes:
        network.freeze()
        return bytes(server.wait_for_cancel(request, context))

    server.answers["ServerLive"] = answer_never
    options = ChannelOptions(keepalive_time_ms=100, keepalive_timeout_ms=100, max_attempts=1)
    with Client(network.url, options=options) as client, pytest.raises(Unavailable, match="(?i)ping|keepalive"):
        client.server_live(timeout_s=WAIT_S)
