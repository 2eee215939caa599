"""Which of the two gRPC servers serves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from trtserve_server.transport import core
from trtserve_server.transport.asyncio_server import AsyncioServer
from trtserve_server.transport.call import GrpcServer, Handlers

log = logging.getLogger(__name__)


def make_server(transport: str, handlers: Handlers, options: Sequence[tuple[str, Any]]) -> GrpcServer:
    """One of config.TRANSPORTS; "auto" is the quicker one where this grpcio has what it takes."""
    if transport == "auto":
        missing = core.missing()
        if not missing:
            from trtserve_server.transport.queue_server import QueueServer

            return QueueServer(handlers, options)
        log.warning(
            "serving through grpc.aio, which is slower: grpcio %s has no %s in grpc._cython.cygrpc",
            version("grpcio"),
            ", ".join(missing),
        )
    return AsyncioServer(handlers, options)
