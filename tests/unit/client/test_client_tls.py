"""Encrypted connections: a server's certificate, a client's, and what a stranger is told."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from trtserve_client import ChannelOptions, Client, TlsOptions, Unavailable

FAST_RETRIES = ChannelOptions(first_backoff_ms=10, max_backoff_ms=10)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is not here to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return key, chain


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
