"""The standard health service, grpc.health.v1: message classes and the table of its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtserve_protos.methods import Method, methods_of
from trtserve_protos.pool import classes_on_demand

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
    __getattr__ = classes_on_demand(globals(), "grpc.health.v1")
