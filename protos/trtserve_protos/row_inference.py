"""trtserve.v1.RowInference, the call for large batches: message classes and the table of its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtserve_protos.methods import Method, methods_of
from trtserve_protos.pool import message_class

SERVICE = "trtserve.v1.RowInference"

METHODS: dict[str, Method] = methods_of(SERVICE)

if TYPE_CHECKING:
    from trtserve_protos._generated.trtserve.v1.row_inference_pb2 import (
        InferRowsRequest as InferRowsRequest,
        InferRowsResponse as InferRowsResponse,
    )
else:

    def __getattr__(name: str) -> Any:
        """Makes a message class when it is first asked for, so that importing this module stays cheap."""
        try:
            cls = message_class(f"trtserve.v1.{name}")
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        globals()[name] = cls
        return cls
