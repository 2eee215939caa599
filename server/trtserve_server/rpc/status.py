"""From an exception to a gRPC status: the one place where this is decided."""

from __future__ import annotations

import logging
from itertools import count

import grpc

from trtserve_protos.errors import ProtocolError
from trtserve_server.errors import Overloaded, RequestError

log = logging.getLogger(__name__)

_MAX_DETAILS_BYTES = 6000
"""Percent-encoded, as details travel in an HTTP/2 header; of all headers together, clients take 8 KiB by default."""

PUSHBACK = "grpc-retry-pushback-ms"
_MAX_PUSHBACK_MS = 60_000

_error_numbers = count(1)


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status and its text. What nobody expected is INTERNAL with a number that the log repeats."""
    if isinstance(error, RequestError):
        return grpc.StatusCode[error.status], _shortened(str(error))
    if isinstance(error, ProtocolError):
        return grpc.StatusCode.INVALID_ARGUMENT, _shortened(str(error))
    number = next(_error_numbers)
    log.error("internal error %d", number, exc_info=error)
    return (
        grpc.StatusCode.INTERNAL,
        f"internal error {number} ({type(error).__name__}); the server's log has the details",
    )


def trailers_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """The trailing metadata beside the status: when to send again, in the form that gRPC's own retries read."""
    if isinstance(error, Overloaded):
        wait_ms = min(_MAX_PUSHBACK_MS, max(1, round(error.retry_after_s * 1e3)))
        return ((PUSHBACK, str(wait_ms)),)
    return ()


def _shortened(text: str) -> str:
    size = 0
    for index, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if size > _MAX_DETAILS_BYTES:
            return text[:index] + " ..."
    return text
