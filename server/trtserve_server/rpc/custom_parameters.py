"""Parameters of requests that mean nothing to the server and come back with the answer, and those that Triton adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trtserve_protos import oip
from trtserve_server.errors import InvalidRequest

if TYPE_CHECKING:
    from trtserve_protos.oip import InferParameter

RESERVED = frozenset(
    ["sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output"]
)
RESERVED_PREFIXES = ("triton_", "trtserve_")
EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"


def _final_response() -> bytes:
    response = oip.ModelInferResponse()
    response.parameters["triton_final_response"].bool_param = True
    return bytes(response.SerializeToString())


FINAL_RESPONSE = _final_response()
"""Put behind an answer on a stream, says that no further one to its request will come, as at Triton."""


def custom_parameters(parameters: Mapping[str, InferParameter]) -> Mapping[str, InferParameter]:
    """Those that are nobody's: a caller's own marks. Raises InvalidRequest for a value that Triton would refuse."""
    # Every request has one answer, which is its last: there is never an empty one to be asked for.
    empty = parameters.get(EMPTY_FINAL_RESPONSE)
    if empty is not None and empty.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest(f"parameter {EMPTY_FINAL_RESPONSE!r} is not a boolean; wanted is true or false")
    return {
        key: value for key, value in parameters.items() if key not in RESERVED and not key.startswith(RESERVED_PREFIXES)
    }
