"""TLS: reads the configured files into the credentials that the server listens with."""

from __future__ import annotations

from pathlib import Path

import grpc

from trtserve_engines.config import ConfigError
from trtserve_server.config import ServerConfig


def server_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """Credentials from the configured files, None where TLS is not configured. Raises ConfigError."""
    if not config.tls_certificate:
        return None
    key = _read("tls_key", config.tls_key)
    chain = _read("tls_certificate", config.tls_certificate)
    authority = _read("tls_client_ca", config.tls_client_ca) if config.tls_client_ca else None
    return grpc.ssl_server_credentials([(key, chain)], authority, require_client_auth=authority is not None)


def _read(name: str, path: str) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} = {path!r} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        raise ConfigError(f"{name} = {path!r} is not a PEM file; wanted is text with a -----BEGIN line")
    return data
