"""The plan of requests some of whose tensors lie in shared memory: what the header says of them, worked out once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trtserve_engines.sources import PlacedArrays
from trtserve_protos import wire
from trtserve_protos.tensors import raw_from_array
from trtserve_server.errors import InvalidRequest
from trtserve_server.request import Complete, InferRequest, InferResponse, Outcome, held_bytes
from trtserve_server.rpc.infer_plan import InferPlan, Raw, checked_array
from trtserve_server.rpc.shared_tensors import OFFSET, REGION, SIZE, shared_input
from trtserve_server.shared_memory.regions import Window
from trtserve_server.shared_memory.tensor import SharedPlace, SharedTensor

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelInferResponse

_MAX_HEADERS = 64

Layout = tuple[tuple[tuple[int, ...], int], ...]
"""Shape and size of each output: what the header of a response depends on."""


class SharedPlan(InferPlan):
    """An InferPlan that knows by name which inputs and outputs have a window. It holds for as long as the regions do.

    Inputs in shared memory take no slot among the raw tensors of a request, while outputs have an empty one in the
    response: that is how clients count them.
    """

    __slots__ = ("_headers", "_places", "most_bytes", "sources", "targets")

    sources: Mapping[str, Window]
    targets: Mapping[str, Window]
    most_bytes: int

    def share(self, sources: Mapping[str, Window], targets: Mapping[str, Window], most_bytes: int) -> None:
        """Says where the tensors lie; an input may have at most `most_bytes`."""
        self.sources = sources
        self.targets = targets
        self.most_bytes = most_bytes
        self._headers: dict[Layout, bytes] = {}
        self._places = _free_places(sources, targets, {name for name, classes in self.outputs if classes})

    def arrays(self, raw: Sequence[Raw]) -> dict[str, Any]:
        """See InferPlan; an input in shared memory is there as what stands in for its array."""
        wanted = len(self.inputs) - len(self.sources)
        if len(raw) != wanted:
            raise InvalidRequest(
                f"raw_input_contents holds {len(raw)} entries; wanted are {wanted}, one for each of the"
                f" {len(self.inputs)} inputs that is not in shared memory"
            )
        arrays: dict[str, Any] = {}
        entries = iter(raw)
        for name, datatype, shape, _ in self.inputs:
            window = self.sources.get(name)
            if window is None:
                arrays[name] = checked_array(name, next(entries), datatype, shape)
            else:
                arrays[name] = shared_input(name, window, datatype, shape, self.most_bytes)
        return self.with_places(arrays)

    def with_places(self, arrays: Mapping[str, Any]) -> PlacedArrays:
        """The inputs of a request, with where its outputs may be written."""
        placed = PlacedArrays(arrays)
        placed.places = {name: SharedPlace(window) for name, window in self._places}
        return placed

    def in_memory(self, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
        """See InferPlan; what lies in shared memory is read, and outputs have no places. Raises InvalidRequest."""
        read = {name: np.asarray(array) for name, array in arrays.items()}
        for array in arrays.values():
            if isinstance(array, SharedTensor) and (problem := array.problem()):
                raise problem
        return read

    def request(
        self, arrays: Mapping[str, Any], complete: Complete, now: float, deadline: float, size: int
    ) -> InferRequest:
        """See InferPlan; memory that was not there when it was wanted makes the outcome an error."""
        places = arrays.places.values() if isinstance(arrays, PlacedArrays) else ()
        shared = [each for each in (*arrays.values(), *places) if isinstance(each, SharedTensor | SharedPlace)]
        if shared:
            complete = partial(_complete, shared, complete)
        return super().request(arrays, complete, now, deadline, max(size, held_bytes(arrays)))

    def raw_response(self, response: InferResponse, request_id: str) -> list[Raw | np.ndarray]:
        """See InferPlan."""
        if not self.targets:
            return super().raw_response(response, request_id)
        outputs = self.outputs_of(response)
        arrays = {name: outputs[name] for name, _ in self.outputs}
        raw = [raw_from_array(array) for array in arrays.values()]
        layout = tuple([(array.shape, len(data)) for array, data in zip(arrays.values(), raw, strict=True)])
        header = self._headers.get(layout)
        if header is None:
            message = self.header(arrays)
            left = self.placed(message, raw)
            header = self._remember_header(layout, message.SerializeToString())
        else:
            left = self._written(raw)
        head = header + wire.id_entry(request_id) if request_id else header
        return [*wire.join(head, wire.RESPONSE_RAW_FIELD, left)]

    def placed(self, header: ModelInferResponse, raw: list[Raw]) -> list[Raw]:
        """Writes outputs to their windows and says so in `header`; gives what stays raw. Raises InvalidRequest."""
        for output, data in zip(header.outputs, raw, strict=True):
            if window := self.targets.get(output.name):
                output.parameters[REGION].string_param = window.region.name
                output.parameters[SIZE].int64_param = len(data)
                if window.offset:
                    output.parameters[OFFSET].int64_param = window.offset
        return self._written(raw)

    def _written(self, raw: list[Raw]) -> list[Raw]:
        left: list[Raw] = []
        for (name, _), data in zip(self.outputs, raw, strict=True):
            if window := self.targets.get(name):
                window.put(data)
                left.append(b"")
            else:
                left.append(data)
        return left

    def _remember_header(self, layout: Layout, header: bytes) -> bytes:
        if len(self._headers) >= _MAX_HEADERS:
            self._headers.clear()
        self._headers[layout] = header
        return header


def _free_places(
    sources: Mapping[str, Window], targets: Mapping[str, Window], made_later: Collection[str]
) -> list[tuple[str, Window]]:
    """The windows that may be written to while the model runs: of what it gives itself, over nothing that it reads."""
    return [
        (name, window)
        for name, window in targets.items()
        if name not in made_later
        and not any(window.overlaps(other) for other in sources.values())
        and not any(window.overlaps(other) for other_name, other in targets.items() if other_name != name)
    ]


def _complete(shared: Sequence[SharedTensor | SharedPlace], complete: Complete, outcome: Outcome) -> None:
    """Completes with the first tensor's problem in place of what was made without it."""
    failed = next(filter(None, (each.problem() for each in shared)), None)
    complete(failed or outcome)
