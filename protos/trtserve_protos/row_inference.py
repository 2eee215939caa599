"""trtserve.v1.RowInference, the call for large batches: message classes and the table of its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtserve_protos.methods import Method, methods_of
from trtserve_protos.pool import classes_on_demand

SERVICE = "trtserve.v1.RowInference"

METHODS: dict[str, Method] = methods_of(SERVICE)

if TYPE_CHECKING:
    from trtserve_protos._generated.trtserve.v1.row_inference_pb2 import (
        InferRowsRequest as InferRowsRequest,
        InferRowsResponse as InferRowsResponse,
    )
else:
    __getattr__ = classes_on_demand(globals(), "trtserve.v1")
