"""Where to connect and how: URL, TLS, message sizes, keepalive, retries. Gives gRPC's names for them; opens nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

import grpc

from trtserve_client.errors import ClientError
from trtserve_protos import health, oip

Pem = bytes | str | os.PathLike[str]
"""Text in PEM form as bytes, or the path of a file that holds it."""

UNARY_PATHS = tuple(
    method.path
    for table in (oip.METHODS, health.METHODS)
    for method in table.values()
    if not method.client_streams and not method.server_streams
)
"""The calls with one request and one response."""

STREAM_PATH = oip.METHODS["ModelStreamInfer"].path

_URL_FORMS = '"host:port", "grpc://host:port", "grpcs://host:port" (TLS), "[::1]:port", "unix:/path"'
# gRPC's own limit for the attempts of one call.
_MOST_ATTEMPTS = 5
_UNLIMITED = 2**31 - 1
# With pauses of about 1 ms a call can hang for ever: https://github.com/grpc/grpc/issues/41036
_LEAST_BACKOFF_MS = 10


@dataclass(frozen=True)
class TlsOptions:
    """Certificates of a TLS connection. Raises ClientError for a private key without its certificate or the reverse."""

    root_certificates: Pem | None = None
    """Certificates that the server's is checked against; None = gRPC's own or GRPC_DEFAULT_SSL_ROOTS_FILE_PATH."""

    private_key: Pem | None = field(default=None, repr=False)
    """The client's key, where the server asks for a client certificate (mTLS)."""

    certificate_chain: Pem | None = None
    """The client's certificate, the one that belongs to `private_key` first."""

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            given, missing = ("private_key", "certificate_chain")[:: 1 if self.private_key else -1]
            raise ClientError(f"TlsOptions: {given} given without {missing}; a client certificate needs both")

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials for gRPC, with the files read now. Raises ClientError for a file that cannot be read."""
        return grpc.ssl_channel_credentials(
            _read_pem(self.root_certificates), _read_pem(self.private_key), _read_pem(self.certificate_chain)
        )


@dataclass(frozen=True)
class ChannelOptions:
    """How a client uses its connection. Raises ClientError for a value outside its range."""

    max_send_bytes: int = -1
    """Largest message to send; -1 = no limit of ours (protobuf's own is 2 GiB)."""

    max_receive_bytes: int = -1
    """Largest message to receive; -1 = no limit of ours."""

    keepalive_time_ms: int = 7_200_000
    """Silence after which the connection is checked by a ping."""

    keepalive_timeout_ms: int = 20_000
    """Wait for the answer to a ping before the connection counts as lost."""

    keepalive_without_calls: bool = False
    """Whether to ping while no call is running; many servers forbid it."""

    max_attempts: int = 3
    """Attempts of a unary call that the server answers with UNAVAILABLE; 0 or 1 = no retry, 5 = the most."""

    first_backoff_ms: int = 100
    """Pause before the first retry, give or take a fifth; each further one doubles it. 10 is the least."""

    max_backoff_ms: int = 2_000
    """Pause that the doubling ends at."""

    max_reconnect_backoff_ms: int = 5_000
    """Longest pause between attempts to connect, so how late a server that came back is found."""

    compression: grpc.Compression = grpc.Compression.NoCompression
    """Compression of the requests; tensors rarely gain by it."""

    arguments: tuple[tuple[str, int | str], ...] = ()
    """Further channel arguments by gRPC's names; they win over the above."""

    def __post_init__(self) -> None:
        least = {
            "max_send_bytes": -1,
            "max_receive_bytes": -1,
            "max_attempts": 0,
            "first_backoff_ms": _LEAST_BACKOFF_MS,
        }
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type == "int" and value < least.get(each.name, 1):
                raise ClientError(f"ChannelOptions: {each.name}={value}, at least {least.get(each.name, 1)} wanted")
        if self.max_attempts > _MOST_ATTEMPTS:
            raise ClientError(f"ChannelOptions: max_attempts={self.max_attempts}, at most {_MOST_ATTEMPTS} wanted")
        if self.max_backoff_ms < self.first_backoff_ms:
            raise ClientError(
                f"ChannelOptions: max_backoff_ms={self.max_backoff_ms} is less than "
                f"first_backoff_ms={self.first_backoff_ms}"
            )

    def channel_arguments(self, target: str) -> list[tuple[str, int | str]]:
        """The options by gRPC's names, for a channel to `target`."""
        arguments: dict[str, int | str] = {
            "grpc.max_send_message_length": self.max_send_bytes,
            "grpc.max_receive_message_length": self.max_receive_bytes,
            "grpc.keepalive_time_ms": self.keepalive_time_ms,
            "grpc.keepalive_timeout_ms": self.keepalive_timeout_ms,
            # Without it recent versions of gRPC wait a minute for the answer to a ping, whatever is set above.
            "grpc.http2.ping_timeout_ms": self.keepalive_timeout_ms,
            "grpc.keepalive_permit_without_calls": int(self.keepalive_without_calls),
            "grpc.http2.max_pings_without_data": 2,
            "grpc.initial_reconnect_backoff_ms": min(1_000, self.max_reconnect_backoff_ms),
            "grpc.max_reconnect_backoff_ms": self.max_reconnect_backoff_ms,
        }
        if self.max_attempts > 1:
            arguments["grpc.service_config"] = self.service_config()
            # A request beyond this size would not be tried again; the default is smaller than one image.
            arguments["grpc.per_rpc_retry_buffer_size"] = _UNLIMITED
        if target.startswith(("127.", "localhost:", "[::1]:")):
            # A proxy that the environment names cannot reach this machine's own loopback.
            arguments["grpc.enable_http_proxy"] = 0
        return list((arguments | dict(self.arguments)).items())

    def service_config(self) -> str:
        """The retries as gRPC's service config in JSON. Streams are left out: what was sent cannot be sent again."""
        names = [dict(zip(("service", "method"), path[1:].split("/"), strict=True)) for path in UNARY_PATHS]
        policy = {
            "maxAttempts": self.max_attempts,
            "initialBackoff": f"{self.first_backoff_ms / 1000}s",
            "maxBackoff": f"{self.max_backoff_ms / 1000}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        import json  # here, because no other part of the client needs it at its import

        return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})


def target_from_url(url: str) -> tuple[str, bool | None]:
    """The place by its name for gRPC, and whether the URL asks for TLS (None = it does not say). Raises ClientError."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if path.startswith("///") or (path.startswith("/") and not path.startswith("//")):
            return url, None
        raise _bad_url(url, "the path of a Unix socket must be absolute")
    scheme, separator, place = url.rpartition("://")
    if separator and scheme not in ("grpc", "grpcs"):
        raise _bad_url(url, f"scheme {scheme!r} is not spoken here")
    host, _, port = place.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise _bad_url(url, "host or port is missing" if place else "it is empty")
    if not 0 < int(port) < 2**16:
        raise _bad_url(url, f"port {port} is not within 1 ... 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise _bad_url(url, "an IPv6 address needs brackets")
    if any(character in "/@?#" or character.isspace() for character in host):
        raise _bad_url(url, "it has more than host and port")
    return place, (scheme == "grpcs" if separator else None)


def tls_options(tls: TlsOptions | bool | None, asked: bool | None) -> TlsOptions | None:
    """The certificates to use, None for plain text, from the caller's `tls` and what the URL asked for."""
    if tls is None:
        return TlsOptions() if asked else None
    if asked is not None and bool(tls) != asked:
        scheme = "grpcs" if asked else "grpc"
        raise ClientError(f"tls={tls!r} contradicts the URL's {scheme}://; drop one of the two")
    return TlsOptions() if tls is True else tls or None


def _bad_url(url: str, reason: str) -> ClientError:
    return ClientError(f"URL {url!r}: {reason}; wanted is one of {_URL_FORMS}")


def _read_pem(pem: Pem | None) -> bytes | None:
    if pem is None or isinstance(pem, bytes):
        return pem
    try:
        return Path(pem).read_bytes()
    except OSError as error:
        raise ClientError(f"TLS file {os.fspath(pem)!r} cannot be read: {error.strerror}") from error
