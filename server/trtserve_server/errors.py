"""What a request can be answered with instead of outputs; `status` is the name of the gRPC status code.

    RequestError(Exception)
    ├── InvalidRequest             INVALID_ARGUMENT    the request contradicts the model or the protocol
    ├── ModelNotFound              NOT_FOUND           no such model or version
    ├── ModelNotReady              UNAVAILABLE         known, but loading, failed or unloading
    ├── Overloaded                 UNAVAILABLE         too much waits already; says when to send again
    │   ├── QueueFull                                  the model's queue holds all that it may
    │   └── ServerOverloaded                           the server holds all the memory for requests that it may
    ├── ServerStopping             UNAVAILABLE         the server drains
    ├── ModelControlOff            FAILED_PRECONDITION the server was started without leave to load and unload
    ├── LoadFailed                 FAILED_PRECONDITION what was to be loaded cannot be
    ├── DeadlineExceeded           DEADLINE_EXCEEDED   the caller's deadline passed before an answer
    ├── RequestCancelled           CANCELLED           the caller is gone
    ├── RegionNotFound             NOT_FOUND           no such region of shared memory, or no such object behind its key
    ├── RegionExists               ALREADY_EXISTS      a region of that name is registered
    ├── RegionLimit                RESOURCE_EXHAUSTED  no more regions can be registered
    ├── NotSupported               UNIMPLEMENTED       part of the protocol that this server does not offer
    └── InferenceFailed            INTERNAL            the model failed on a valid request
        └── OutOfMemory            RESOURCE_EXHAUSTED  there was too little memory for it; others may fit

Every message says what was given, what was wanted and, where it is known, what to do.
"""

from __future__ import annotations

from typing import ClassVar


class RequestError(Exception):
    """Base of everything that a request can be refused or failed with."""

    status: ClassVar[str] = "UNKNOWN"
    reason: ClassVar[str] = "OTHER"
    """The label in the metric of failed requests, as Triton names them."""


class InvalidRequest(RequestError):
    """The request contradicts the model or the protocol."""

    status = "INVALID_ARGUMENT"


class ModelNotFound(RequestError):
    """No such model or version."""

    status = "NOT_FOUND"


class ModelNotReady(RequestError):
    """The model is known, but loading, failed or unloading."""

    status = "UNAVAILABLE"


class Overloaded(RequestError):
    """Too much waits already. `retry_after_s` is when sending again makes sense."""

    status = "UNAVAILABLE"
    reason = "REJECTED"
    retry_after_s: float = 0.0


class QueueFull(Overloaded):
    """The model's queue holds all that it may."""


class ServerOverloaded(Overloaded):
    """The requests in flight hold all the memory that they may."""


class ServerStopping(RequestError):
    """The server drains and takes nothing new."""

    status = "UNAVAILABLE"
    reason = "REJECTED"


class ModelControlOff(RequestError):
    """The server was started without leave to load and unload models on request."""

    status = "FAILED_PRECONDITION"


class LoadFailed(RequestError):
    """What was to be loaded cannot be: the model's files or its configuration have to change first."""

    status = "FAILED_PRECONDITION"


class DeadlineExceeded(RequestError):
    """The caller's deadline passed before there was an answer."""

    status = "DEADLINE_EXCEEDED"
    reason = "REJECTED"


class RequestCancelled(RequestError):
    """The caller is gone."""

    status = "CANCELLED"
    reason = "CANCELED"


class RegionNotFound(RequestError):
    """No such region of shared memory, or no such object behind its key."""

    status = "NOT_FOUND"


class RegionExists(RequestError):
    """A region of that name is registered."""

    status = "ALREADY_EXISTS"


class RegionLimit(RequestError):
    """No more regions can be registered."""

    status = "RESOURCE_EXHAUSTED"


class NotSupported(RequestError):
    """Part of the protocol that this server does not offer."""

    status = "UNIMPLEMENTED"


class InferenceFailed(RequestError):
    """The model failed on a valid request."""

    status = "INTERNAL"
    reason = "BACKEND"


class OutOfMemory(InferenceFailed):
    """There was too little memory to run the request, on the device or on the host. Others may fit."""

    status = "RESOURCE_EXHAUSTED"
