"""TLS: reads the configured files into the credentials that the server listens with."""

from __future__ import annotations

import ssl
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
    _check(config)
    return grpc.ssl_server_credentials([(key, chain)], authority, require_client_auth=authority is not None)


def _check(config: ServerConfig) -> None:
    """Tries the files out, because gRPC says of bad ones only that it cannot listen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password an encrypted key would ask for one at the terminal.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password="")
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls_certificate = {config.tls_certificate!r} and tls_key = {config.tls_key!r} cannot be used:"
            f" {_reason(error)}; wanted are a certificate chain and the unencrypted private key of its first one"
        ) from error
    try:
        if config.tls_client_ca:
            context.load_verify_locations(config.tls_client_ca)
    except ssl.SSLError as error:
        raise ConfigError(
            f"tls_client_ca = {config.tls_client_ca!r} cannot be used: {_reason(error)}; wanted are certificates"
        ) from error


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "BAD_PEM_DATA").lower().replace("_", " ")


def _read(name: str, path: str) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} = {path!r} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        raise ConfigError(f"{name} = {path!r} is not a PEM file; wanted is text with a -----BEGIN line")
    return data
