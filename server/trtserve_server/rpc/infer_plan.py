"""What a request's header says, worked out once: clients send the same header again and again, with other tensors.

A plan is made from the first request with a header, which passes every check on the way. Later requests with the
same bytes as header need only their tensors' sizes checked, and their answers only new tensors behind a known head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trtserve_protos import dtypes, oip, wire
from trtserve_protos.dtypes import DataType
from trtserve_protos.errors import ProtocolError
from trtserve_protos.tensors import array_from_raw, raw_from_array
from trtserve_server.errors import InvalidRequest
from trtserve_server.models.model import Model
from trtserve_server.request import BatchKey, Complete, InferRequest, InferResponse
from trtserve_server.rpc.batch_dimension import as_request
from trtserve_server.shared_memory.regions import Window

if TYPE_CHECKING:
    from trtserve_protos.oip import InferParameter, ModelInferResponse

Raw = bytes | memoryview

_MAX_HEADS = 64


class PlannedInput(NamedTuple):
    """One input. `size` is that of its raw form, in bytes; -1 where only its content tells."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    size: int


class PlannedOutput(NamedTuple):
    """One requested output; `classes` is above 0 where the classification extension is asked for."""

    name: str
    classes: int


class InferPlan:
    """All that requests with the same header have in common."""

    sources: Mapping[str, Window] = {}
    """Inputs that lie in shared memory; see SharedPlan."""

    __slots__ = (
        "_heads",
        "batch_key",
        "cached_outputs",
        "explain",
        "extra_dimensions",
        "inputs",
        "model",
        "outputs",
        "parameters",
        "plain",
        "priority",
        "raw_form",
        "rows",
        "wait_limit_s",
    )

    def __init__(
        self,
        model: Model,
        inputs: Sequence[PlannedInput],
        outputs: Sequence[PlannedOutput],
        *,
        raw_form: bool,
        priority: int,
        wait_limit_s: float,
        use_cache: bool,
        extra_dimensions: int,
        parameters: Mapping[str, InferParameter],
        explain: bool,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.outputs = outputs
        self.raw_form = raw_form
        self.explain = explain
        # Outputs as they are need nothing but a known head before each.
        self.plain = raw_form and not explain and not any(classes for _, classes in outputs)
        self.priority = priority
        self.cached_outputs = tuple(name for name, _ in outputs) if use_cache else None
        self.wait_limit_s = wait_limit_s
        self.extra_dimensions = extra_dimensions
        self.parameters = parameters
        self.rows = 1
        self.batch_key: BatchKey = ()
        self._heads: dict[tuple[tuple[int, ...], ...], list[bytes]] = {}

    def arrays(self, raw: Sequence[Raw]) -> dict[str, np.ndarray]:
        """The inputs over the request's raw tensors. Raises InvalidRequest where these do not fit the header."""
        if len(raw) != len(self.inputs):
            raise InvalidRequest(
                f"raw_input_contents holds {len(raw)} entries for {len(self.inputs)} inputs;"
                " wanted is one per input, or none"
            )
        arrays = {}
        for (name, datatype, shape, size), data in zip(self.inputs, raw, strict=True):
            if len(data) == size:
                arrays[name] = np.ndarray(shape, datatype.numpy, data)
            else:
                arrays[name] = checked_array(name, data, datatype, shape)
        return arrays

    def in_memory(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs as arrays that stay what they are now: which all of them do."""
        return arrays

    def request(
        self, arrays: Mapping[str, np.ndarray], complete: Complete, now: float, deadline: float, size: int
    ) -> InferRequest:
        """The core's request for arrays that have been checked, which hold a message of `size` bytes in memory."""
        request = InferRequest(
            arrays,
            complete,
            arrived=now,
            deadline=deadline,
            priority=self.priority,
            wait_limit_s=self.wait_limit_s,
            size_bytes=size,
        )
        request.rows = self.rows
        request.batch_key = self.batch_key
        request.cached_outputs = self.cached_outputs
        return request

    def outputs_of(self, response: InferResponse) -> Mapping[str, np.ndarray]:
        """All outputs, with a batch dimension where the request had one."""
        return as_request(response.outputs, self.extra_dimensions) if self.extra_dimensions else response.outputs

    def header(self, arrays: Mapping[str, np.ndarray]) -> ModelInferResponse:
        """A response with the names, datatypes and shapes of `arrays`, without their content."""
        header = oip.ModelInferResponse(model_name=self.model.name, model_version=self.model.version)
        for key, value in self.parameters.items():
            header.parameters[key].CopyFrom(value)
        for name, array in arrays.items():
            header.outputs.add(name=name, datatype=dtypes.from_numpy(array.dtype).name, shape=array.shape)
        return header

    def raw_response(self, response: InferResponse, request_id: str) -> list[Raw | np.ndarray]:
        """The pieces of the response message when outputs are asked for as they are, in raw form."""
        outputs = self.outputs_of(response)
        if self.outputs:
            outputs = {name: outputs[name] for name, _ in self.outputs}
        shapes = tuple([array.shape for array in outputs.values()])
        heads = self._heads.get(shapes)
        if heads is None:
            heads = self._remember_heads(shapes, outputs)
        pieces: list[Raw | np.ndarray] = [heads[0]]
        if request_id:
            pieces.append(wire.id_entry(request_id))
        for head, array in zip(heads[1:], outputs.values(), strict=True):
            if head:
                pieces.append(head)
                pieces.append(raw_from_array(array))
            else:  # strings: only their content tells the size
                raw = raw_from_array(array)
                pieces += wire.join(b"", wire.RESPONSE_RAW_FIELD, [raw])
        return pieces

    def placed(self, header: ModelInferResponse, raw: list[Raw]) -> list[Raw]:
        """What of the outputs travels in the message: everything."""
        return raw

    def _remember_heads(self, shapes: tuple[tuple[int, ...], ...], outputs: Mapping[str, np.ndarray]) -> list[bytes]:
        """The header for outputs of these shapes, and what stands before each tensor; "" where its size may differ."""
        heads = [self.header(outputs).SerializeToString()]
        for array in outputs.values():
            fixed = dtypes.from_numpy(array.dtype).item_size
            heads.append(wire.entry_head(wire.RESPONSE_RAW_FIELD, array.size * fixed) if fixed else b"")
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[shapes] = heads
        return heads


def checked_array(name: str, data: Raw, datatype: DataType, shape: tuple[int, ...]) -> np.ndarray:
    """An input over its raw form. Raises InvalidRequest that names it."""
    try:
        return array_from_raw(data, datatype, shape)
    except ProtocolError as error:
        raise InvalidRequest(f"input {name!r}: {error}") from None
