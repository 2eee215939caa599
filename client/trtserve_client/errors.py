"""What can go wrong between a caller and a model.

    ClientError(Exception)
    ├── InputError                     an array, a parameter or an id that does not fit the model or the protocol
    ├── BadResponse                    the server's answer is not what the protocol says
    ├── StreamError                    one request of a stream failed; .request_id names it
    ├── ClosedClientError              the client was closed
    ├── ForkedClientError              the client was made in another process
    └── ServerError                    the call ended with a gRPC status: .code, .details
        ├── InvalidRequest             INVALID_ARGUMENT
        ├── NotFound                   NOT_FOUND
        ├── DeadlineExceeded           DEADLINE_EXCEEDED
        ├── Cancelled                  CANCELLED
        ├── Unavailable                UNAVAILABLE
        ├── ResourceExhausted          RESOURCE_EXHAUSTED
        ├── Unimplemented              UNIMPLEMENTED
        ├── PermissionDenied           PERMISSION_DENIED
        ├── Unauthenticated            UNAUTHENTICATED
        ├── AlreadyExists              ALREADY_EXISTS
        ├── FailedPrecondition         FAILED_PRECONDITION
        ├── InternalError              INTERNAL
        └── UnknownError               UNKNOWN and every status without a class of its own

Every message says what was given or where it happened, what was wanted and, where it is known, what to do.
"""

from __future__ import annotations

from typing import ClassVar

from grpc import StatusCode


class ClientError(Exception):
    """Base of the errors of trtserve_client; raised itself for an unusable URL or option."""


class InputError(ClientError):
    """An array, a parameter or an id that does not fit the model's metadata or cannot be sent."""


class BadResponse(ClientError):
    """The server's answer is not what the protocol says."""


class StreamError(ClientError):
    """One request of a stream failed.

    `request_id` is the id that the caller gave the request, or its index where none was given; "" where the server did
    not say which request it was. `details` is the server's own text.
    """

    def __init__(self, message: str, *, request_id: str = "", details: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id
        self.details = details


class ClosedClientError(ClientError):
    """The client was closed."""


class ForkedClientError(ClientError):
    """The client was made in another process."""


class ServerError(ClientError):
    """The call ended with a gRPC status other than OK. `details` is the text that came with the status."""

    code: StatusCode = StatusCode.UNKNOWN
    hint: ClassVar[str] = ""
    """What the caller can do, in a few words; "" where nothing is known."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class InvalidRequest(ServerError):
    """The request does not fit the model or the protocol."""

    code = StatusCode.INVALID_ARGUMENT


class NotFound(ServerError):
    """The server has no such model, version or service."""

    code = StatusCode.NOT_FOUND
    hint = "repository_index() lists the models that the server knows"


class DeadlineExceeded(ServerError):
    """The answer did not come within timeout_s."""

    code = StatusCode.DEADLINE_EXCEEDED
    hint = "give more timeout_s or send less at a time"


class Cancelled(ServerError):
    """The call was cancelled."""

    code = StatusCode.CANCELLED


class Unavailable(ServerError):
    """Nothing answers at the URL, or the server cannot take it now: it loads, stops, or has as much as it can do."""

    code = StatusCode.UNAVAILABLE
    hint = "is the server running there, and has it loaded the model?"


class ResourceExhausted(ServerError):
    """A run needs more memory than there is, or a message is larger than one side takes."""

    code = StatusCode.RESOURCE_EXHAUSTED
    hint = "send fewer requests at once, or smaller ones, and try again later"


class Unimplemented(ServerError):
    """The server does not offer this call."""

    code = StatusCode.UNIMPLEMENTED
    hint = "is this the gRPC port of a server of the Open Inference Protocol?"


class PermissionDenied(ServerError):
    """The server knows the caller and does not allow the call."""

    code = StatusCode.PERMISSION_DENIED


class Unauthenticated(ServerError):
    """The server wants to know who calls."""

    code = StatusCode.UNAUTHENTICATED
    hint = 'give a token, for example metadata=[("authorization", "Bearer ...")], or a client certificate in TlsOptions'


class AlreadyExists(ServerError):
    """What should be made exists already."""

    code = StatusCode.ALREADY_EXISTS


class FailedPrecondition(ServerError):
    """The server's state does not allow the call."""

    code = StatusCode.FAILED_PRECONDITION


class InternalError(ServerError):
    """The server failed; the reason stands in its log."""

    code = StatusCode.INTERNAL


class UnknownError(ServerError):
    """A status without a class of its own; `code` says which."""

    code = StatusCode.UNKNOWN


_BY_CODE = {cls.code: cls for cls in ServerError.__subclasses__()}


def error_from_status(code: StatusCode, details: str | None, *, url: str = "", model: str = "") -> ServerError:
    """The exception for a status, with a message that says where it happened and, where that is known, what to do."""
    cls = _BY_CODE.get(code, UnknownError)
    where = " ".join(filter(None, (url, f"model {model!r}" if model else "")))
    message = f"{where}: " if where else ""
    message += f"{code.name}: {details}" if details else code.name
    error = cls(f"{message} ({cls.hint})" if cls.hint else message, details=details or "")
    error.code = code
    return error
