"""grpc.health.v1: the state of the server, of each service and of each model, as Check, List and Watch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc

from trtserve_protos import health, wire
from trtserve_protos.health import HealthCheckResponse
from trtserve_server.errors import ModelNotFound
from trtserve_server.rpc.handlers import Context, generic_handler

if TYPE_CHECKING:
    from trtserve_protos.health import HealthCheckRequest, HealthListRequest, HealthListResponse

_SERVICE_UNKNOWN = "SERVICE_UNKNOWN"
_MAX_LISTED = 100


class HealthService:
    """Holds a status, "SERVING" or "NOT_SERVING", per name: "" for the server, then services, then models."""

    def __init__(self) -> None:
        self._statuses: dict[str, str] = {"": "NOT_SERVING"}
        self._changed = asyncio.Event()
        self._ended = False

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for a grpc.aio server."""
        return generic_handler(
            health.SERVICE,
            health.METHODS,
            messages={"Check": self.check, "List": self.list},
            server_streams={"Watch": self.watch},
        )

    def update(self, statuses: Mapping[str, str]) -> None:
        """Replaces all statuses and wakes the watchers."""
        self._statuses = dict(statuses)
        self._changed.set()
        self._changed = asyncio.Event()

    async def check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """The status now. Raises ModelNotFound (NOT_FOUND) for an unknown name, as the protocol has it."""
        status = self._statuses.get(request.service)
        if status is None:
            raise ModelNotFound(f"service {request.service!r} is unknown; List gives the known ones")
        return HealthCheckResponse(status=status)

    async def list(self, request: HealthListRequest, context: Context) -> HealthListResponse:
        """Every name and its status; the server and its services first where there are more than fit."""
        names = list(self._statuses)[:_MAX_LISTED]
        return health.HealthListResponse(
            statuses={name: HealthCheckResponse(status=self._statuses[name]) for name in names}
        )

    def end(self) -> None:
        """Ends the watchers once they have seen the last status: the server stops."""
        self._ended = True
        self.update(self._statuses)

    async def watch(self, data: bytes, context: Context) -> None:
        """The status now and after every change, until the caller goes or the server stops."""
        service = wire.parse(health.HealthCheckRequest, data).service
        last = None
        while True:
            changed, ended = self._changed, self._ended
            status = self._statuses.get(service, _SERVICE_UNKNOWN)
            if status != last:
                await context.write(HealthCheckResponse(status=status).SerializeToString())
                last = status
            if ended:
                return
            await changed.wait()
