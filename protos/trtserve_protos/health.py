"""The standard health service, grpc.health.v1: message classes and the table of its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtserve_protos.methods import Method, methods_of
from trtserve_protos.pool import message_class

SERVICE = "grpc.health.v1.Health"

METHODS: dict[str, Method] = methods_of(SERVICE)

if TYPE_CHECKING:
    from trtserve_protos._generated.health.health_pb2 import (
        HealthCheckRequest as HealthCheckRequest,
        HealthCheckResponse as HealthCheckResponse,
        HealthListRequest as HealthListRequest,
        HealthListResponse as HealthListResponse,
    )
else:
    HealthCheckRequest = message_class("grpc.health.v1.HealthCheckRequest")
    HealthCheckResponse = message_class("grpc.health.v1.HealthCheckResponse")
    HealthListRequest = message_class("grpc.health.v1.HealthListRequest")
    HealthListResponse = message_class("grpc.health.v1.HealthListResponse")
