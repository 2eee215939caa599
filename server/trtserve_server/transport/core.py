"""What is used of grpcio's compiled module beside its public API: all of it, and whether it is there.

grpcio's own synchronous server has been written on these names since its first version. They are promised to nobody,
so a grpcio without them is no error: grpc.aio serves then.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_cygrpc: Any = import_module("grpc._cython.cygrpc")

_NAMES = (
    "CompletionQueue",
    "CompletionType",
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
    "Server",
)


def missing(module: Any = _cygrpc) -> list[str]:
    """The names that a module, this grpcio's, has not."""
    return [name for name in _NAMES if not hasattr(module, name)]


CompletionQueue: Any
CompletionType: Any
ReceiveCloseOnServerOperation: Any
ReceiveMessageOperation: Any
SendInitialMetadataOperation: Any
SendMessageOperation: Any
SendStatusFromServerOperation: Any
Server: Any


def __getattr__(name: str) -> Any:
    return getattr(_cygrpc, name)
