"""Encrypted connections: a server's certificate, a client's, and what a stranger is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from trtserve_client import ChannelOptions, Client, TlsOptions, Unavailable

FAST_RETRIES = ChannelOptions(first_backoff_ms=10, max_backoff_ms=10)


def test_tls(make_server: Callable[..., Any], certificate: tuple[Path, Path]) -> None:
    key, chain = certificate
    server = make_server(grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())]))
    for tls in (TlsOptions(root_certificates=chain), TlsOptions(root_certificates=chain.read_bytes())):
        for url in (server.url, f"grpcs://localhost:{server.port}"):
            with Client(url, tls=tls) as client:
                assert client.infer("echo", {"x": [[1, 2]]})["x"].tolist() == [[1, 2]]
    with Client(server.url, tls=True, options=FAST_RETRIES) as stranger, pytest.raises(Unavailable):
        stranger.server_live()


def test_mutual_tls(make_server: Callable[..., Any], certificate: tuple[Path, Path]) -> None:
    key, chain = certificate
    pair = [(key.read_bytes(), chain.read_bytes())]
    server = make_server(grpc.ssl_server_credentials(pair, chain.read_bytes(), require_client_auth=True))
    with Client(server.url, tls=TlsOptions(chain, private_key=str(key), certificate_chain=str(chain))) as client:
        assert client.server_live()
    with Client(server.url, tls=TlsOptions(chain), options=FAST_RETRIES) as unknown, pytest.raises(Unavailable):
        unknown.server_live()
