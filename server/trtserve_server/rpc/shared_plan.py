"""The plan of requests some of whose tensors lie in shared memory: what the header says of them, worked out once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trtserve_engines.sources import PlacedArrays
from trtserve_protos import wire
from trtserve_protos.dtypes import DataType
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

_IN_PLACE_BYTES = 1 << 19
"""From so many bytes on, copying tensors into a batch and out of it takes longer than the quickest run alone."""

_NOTHING_RAW = wire.entry_head(wire.RESPONSE_RAW_FIELD, 0)
"""The entry of an output that is not in the message."""

Layout = tuple[tuple[tuple[int, ...], int], ...]
"""Shape and size of each output: what the header of a response depends on."""


class SharedArrays(PlacedArrays):
    """The inputs of a request, and all that it has in shared memory, which knows afterwards what went wrong there."""

    __slots__ = ("shared",)

    shared: Sequence[SharedTensor | SharedPlace]


class _Input(NamedTuple):
    """An input, and where it lies: in the message without a `window`. `as_is` says that its values need no look."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    window: Window | None
    as_is: bool


class SharedPlan(InferPlan):
    """An InferPlan that knows by name which inputs and outputs have a window. It holds for as long as the regions do.

    Inputs in shared memory take no slot among the raw tensors of a request, while outputs have an empty one in the
    response: that is how clients count them.
    """

    __slots__ = ("_headers", "_in_place", "_inputs", "_places", "_reads", "most_bytes", "sources", "targets")

    sources: Mapping[str, Window]
    targets: Mapping[str, Window]
    most_bytes: int

    def share(self, sources: Mapping[str, Window], targets: Mapping[str, Window], most_bytes: int) -> None:
        """Says where the tensors lie; an input may have at most `most_bytes`."""
        self.sources = sources
        self.targets = targets
        self.most_bytes = most_bytes
        self._inputs = [
            # A size is that of the datatype and shape: of an input in shared memory it was checked with the first one.
            _Input(name, datatype, shape, sources.get(name), size >= 0)
            for name, datatype, shape, size in self.inputs
        ]
        self._reads = any(each.window is not None and not each.as_is for each in self._inputs)
        self._headers: dict[Layout, bytes] = {}
        self._places = _free_places(sources, targets, {name for name, classes in self.outputs if classes})
        read = [each.window for each in self._inputs if each.window is not None and each.as_is]
        windows = [*read, *(window for _, window in self._places)]
        self._in_place = sum(window.size for window in windows if window.is_there()) >= _IN_PLACE_BYTES

    def arrays(self, raw: Sequence[Raw]) -> SharedArrays:
        """See InferPlan; an input in shared memory is there as what stands in for its array."""
        wanted = len(self.inputs) - len(self.sources)
        if len(raw) != wanted:
            raise InvalidRequest(
                f"raw_input_contents holds {len(raw)} entries; wanted are {wanted}, one for each of the"
                f" {len(self.inputs)} inputs that is not in shared memory"
            )
        arrays = SharedArrays()
        entries = iter(raw)
        for name, datatype, shape, window, as_is in self._inputs:
            if window is None:
                arrays[name] = checked_array(name, next(entries), datatype, shape)
            elif as_is:
                arrays[name] = SharedTensor(window, datatype.numpy, shape)
            else:
                arrays[name] = shared_input(name, window, datatype, shape, self.most_bytes)
        return self._with_places(arrays)

    def with_places(self, arrays: Mapping[str, Any]) -> SharedArrays:
        """The inputs of a request, with where its outputs may be written."""
        return self._with_places(SharedArrays(arrays))

    def _with_places(self, arrays: SharedArrays) -> SharedArrays:
        arrays.places = places = {name: SharedPlace(window) for name, window in self._places}
        arrays.shared = [*[each for each in arrays.values() if isinstance(each, SharedTensor)], *places.values()]
        return arrays

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
        shared = arrays.shared if isinstance(arrays, SharedArrays) else ()
        if shared:
            complete = partial(_complete, shared, complete)
        if self._reads or not shared:
            size = max(size, held_bytes(arrays))
        request = super().request(arrays, complete, now, deadline, size)
        request.in_place = self._in_place and len(shared) > 0
        return request

    def raw_response(self, response: InferResponse, request_id: str) -> list[Raw | np.ndarray]:
        """See InferPlan."""
        if not self.targets:
            return super().raw_response(response, request_id)
        outputs = self.outputs_of(response)
        layout: list[tuple[tuple[int, ...], int]] = []
        left: list[Raw] = []
        for name, _ in self.outputs:
            array = outputs[name]
            target = self.targets.get(name)
            if target is not None and target.region.holds(array):  # made there, and checked when it was
                layout.append((array.shape, array.nbytes))
                left.append(b"")
            else:
                raw = raw_from_array(array)
                layout.append((array.shape, len(raw)))
                left.append(_written(target, raw))
        header = self._headers.get(tuple(layout)) or self._remember_header(tuple(layout), outputs)
        head = header + wire.id_entry(request_id) if request_id else header
        if len(self.targets) == len(left):
            return [head, _NOTHING_RAW * len(left)]
        return [*wire.join(head, wire.RESPONSE_RAW_FIELD, left)]

    def placed(self, header: ModelInferResponse, raw: list[Raw]) -> list[Raw]:
        """Writes outputs to their windows and says so in `header`; gives what stays raw. Raises InvalidRequest."""
        self._say_where(header, [len(data) for data in raw])
        return [_written(self.targets.get(name), data) for (name, _), data in zip(self.outputs, raw, strict=True)]

    def _say_where(self, header: ModelInferResponse, sizes: Sequence[int]) -> None:
        for output, size in zip(header.outputs, sizes, strict=True):
            if window := self.targets.get(output.name):
                output.parameters[REGION].string_param = window.region.name
                output.parameters[SIZE].int64_param = size
                if window.offset:
                    output.parameters[OFFSET].int64_param = window.offset

    def _remember_header(self, layout: Layout, outputs: Mapping[str, np.ndarray]) -> bytes:
        message = self.header({name: outputs[name] for name, _ in self.outputs})
        self._say_where(message, [size for _, size in layout])
        if len(self._headers) >= _MAX_HEADERS:
            self._headers.clear()
        header = self._headers[layout] = message.SerializeToString()
        return header


def _written(target: Window | None, raw: Raw) -> Raw:
    """What of an output stays in the message once it is in its window, if it has one. Raises InvalidRequest."""
    if target is None:
        return raw
    target.write(raw)
    return b""


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
    for each in shared:
        if problem := each.problem():
            complete(problem)
            return
    complete(outcome)
