"""The calls of a gRPC service as a table read from its descriptor: path, messages, which sides stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trtserve_protos.pool import POOL, message_class


@dataclass(frozen=True)
class Method:
    """One call of a service. `path` is what goes on the wire: "/package.Service/Name"."""

    name: str
    path: str
    request_name: str
    response_name: str
    client_streams: bool
    server_streams: bool

    @property
    def request_class(self) -> Any:
        """The class of the request message."""
        return message_class(self.request_name)

    @property
    def response_class(self) -> Any:
        """The class of the response message."""
        return message_class(self.response_name)


def methods_of(service: str) -> dict[str, Method]:
    """The calls of the service called `service` by its full name, in the order of its definition."""
    descriptor = POOL.FindServiceByName(service)
    return {
        method.name: Method(
            name=method.name,
            path=f"/{service}/{method.name}",
            request_name=method.input_type.full_name,
            response_name=method.output_type.full_name,
            client_streams=bool(method.client_streaming),
            server_streams=bool(method.server_streaming),
        )
        for method in descriptor.methods
    }
