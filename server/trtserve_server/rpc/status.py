"""From an exception to a gRPC status: the one place where this is decided."""

from __future__ import annotations

import logging
from itertools import count

import grpc

from trtserve_protos.errors import ProtocolError
from trtserve_server.errors import RequestError

log = logging.getLogger(__name__)

_MAX_DETAILS = 2000
"""Characters. Details travel as HTTP/2 headers, of which clients take 8 KiB by default, percent-encoded."""

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


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_DETAILS else text[:_MAX_DETAILS] + " ..."
