"""Large batches: arrays of any number of rows to the request, each answer to the rows that it holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trtserve_client.errors import BadResponse, InputError
from trtserve_client.inputs import Inputs, Tensor
from trtserve_client.messages import Outputs, Parameters, result_from_response, stream_request
from trtserve_client.result import Result
from trtserve_protos import row_inference, wire
from trtserve_protos.errors import WireError

PATH = row_inference.METHODS["InferRows"].path

_LARGEST = 2**32 - 1


class Rows(NamedTuple):
    """Some rows of a batch: which ones, counted from 0, and their outputs."""

    rows: range
    result: Result


class Batch(NamedTuple):
    """What one call of infer_rows asks for."""

    model: str
    inputs: Inputs
    version: str
    outputs: Outputs | None
    id: str
    parameters: Parameters | None
    rows_per_answer: int
    window: int
    ordered: bool

    def request(self, arrays: Mapping[str, Tensor]) -> bytes:
        """The bytes of an InferRowsRequest for the inputs as `arrays`. Raises InputError for what cannot be sent."""
        for name, value in (("rows_per_answer", self.rows_per_answer), ("window", self.window)):
            if not 0 <= value <= _LARGEST:
                raise InputError(f"{name}={value} given, 0 (the server's choice) to {_LARGEST} wanted")
        options = row_inference.InferRowsRequest(
            rows_per_answer=self.rows_per_answer, window=self.window, in_order=self.ordered
        )
        batch = stream_request(
            self.model, arrays, version=self.version, outputs=self.outputs, id=self.id, parameters=self.parameters
        )
        return wire.encode_rows_request(options, batch)


def rows_from_response(message: bytes) -> Rows:
    """The rows of an InferRowsResponse. Raises BadResponse."""
    try:
        header, response = wire.decode_rows_response(message)
    except WireError as problem:
        raise BadResponse(f"an answer to the batch cannot be read: {problem}") from problem
    return Rows(range(header.first_row, header.first_row + header.row_count), result_from_response(response))
