"""grpc.health.v1: the state of the server, of each service and of each model, as Check, List and Watch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from trtserve_protos import health, wire
from trtserve_protos.health import HealthCheckResponse
from trtserve_server.errors import ModelNotFound
from trtserve_server.rpc.handlers import handlers_of
from trtserve_server.transport.call import Call, Handlers

if TYPE_CHECKING:
    from trtserve_protos.health import HealthCheckRequest, HealthListRequest, HealthListResponse

_SERVICE_UNKNOWN = "SERVICE_UNKNOWN"
_MAX_LISTED = 100


class HealthService:
    """Holds a status, "SERVING" or "NOT_SERVING", per name: "" for the server, then services, then models."""

    def __init__(self) -> None:
        self._statuses: dict[str, str] = {"": "NOT_SERVING"}
        self._watchers: set[_Watcher] = set()
        self._ended = False

    def handlers(self) -> Handlers:
        """By their paths."""
        return handlers_of(health.METHODS, messages={"Check": self.check, "List": self.list}, raw={"Watch": self.watch})

    def update(self, statuses: Mapping[str, str]) -> None:
        """Replaces all statuses and tells the watchers."""
        self._statuses = dict(statuses)
        for watcher in self._watchers:
            self._tell(watcher)

    async def check(self, request: HealthCheckRequest, call: Call) -> HealthCheckResponse:
        """The status now. Raises ModelNotFound (NOT_FOUND) for an unknown name, as the protocol has it."""
        status = self._statuses.get(request.service)
        if status is None:
            raise ModelNotFound(f"service {request.service!r} is unknown; List gives the known ones")
        return HealthCheckResponse(status=status)

    async def list(self, request: HealthListRequest, call: Call) -> HealthListResponse:
        """Every name and its status; the server and its services first where there are more than fit."""
        names = list(self._statuses)[:_MAX_LISTED]
        return health.HealthListResponse(
            statuses={name: HealthCheckResponse(status=self._statuses[name]) for name in names}
        )

    def end(self) -> None:
        """Ends the watchers once they have seen the last status: the server stops."""
        self._ended = True
        self.update(self._statuses)

    def watch(self, data: bytes, call: Call) -> None:
        """The status now and after every change, until the caller goes or the server stops. Raises ProtocolError."""
        watcher = _Watcher(call, wire.parse(health.HealthCheckRequest, data).service)
        self._watchers.add(watcher)
        call.on_cancel = partial(self._watchers.discard, watcher)
        self._tell(watcher)

    def _tell(self, watcher: _Watcher) -> None:
        watcher.tell(self._statuses.get(watcher.service, _SERVICE_UNKNOWN), is_last=self._ended)


class _Watcher:
    """One call of Watch. Of statuses that come while one is being sent the caller gets the last."""

    def __init__(self, call: Call, service: str) -> None:
        self.service = service
        self._call = call
        self._status = self._sent = ""
        self._is_last = self._is_sending = False

    def tell(self, status: str, *, is_last: bool) -> None:
        """Sends a status unless the caller has it, and ends the call with the last."""
        self._status, self._is_last = status, is_last
        if not self._is_sending:
            self._send()

    def _send(self) -> None:
        if self._status != self._sent:
            self._sent = self._status
            self._is_sending = True
            self._call.send(HealthCheckResponse(status=self._status).SerializeToString(), self._was_sent)
        elif self._is_last:
            self._call.end()

    def _was_sent(self, success: bool) -> None:
        self._is_sending = False
        if success:
            self._send()
