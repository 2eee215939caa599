"""Between inference messages and the core's requests: bytes to a request, an answer to bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trtserve_protos import dtypes, wire, wishes
from trtserve_protos.errors import ProtocolError
from trtserve_protos.splitter import Splitter
from trtserve_protos.tensors import array_from_contents, array_from_raw, fill_contents, has_contents, raw_from_array
from trtserve_server.config import MAX_MESSAGE_BYTES
from trtserve_server.errors import InvalidRequest, NotSupported
from trtserve_server.models.model import Model
from trtserve_server.models.registry import Registry
from trtserve_server.request import Complete, InferRequest, InferResponse, held_bytes
from trtserve_server.rpc.batch_dimension import as_model, extra_dimensions
from trtserve_server.rpc.classification import classify
from trtserve_server.rpc.custom_parameters import custom_parameters
from trtserve_server.rpc.explain import explain
from trtserve_server.rpc.infer_plan import InferPlan, PlannedInput, PlannedOutput, Raw
from trtserve_server.rpc.parameters import flag, value_of, whole_number
from trtserve_server.rpc.shared_plan import SharedPlan
from trtserve_server.rpc.shared_tensors import shared_input, windows_of
from trtserve_server.shared_memory.regions import Regions, Window
from trtserve_server.tracing import Tracer

if TYPE_CHECKING:
    from trtserve_protos.oip import InferParameter, ModelInferRequest

_MAX_PLANS = 1024
_MAX_HEADER_BYTES = 4096


class InferCodec:
    """Decodes requests for the models of `registry`, with a plan per distinct header; `tracer` may record some.

    `regions` is None where clients may not share memory; a tensor there may have `max_tensor_bytes`.
    """

    def __init__(
        self,
        registry: Registry,
        tracer: Tracer,
        regions: Regions | None = None,
        max_tensor_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._registry = registry
        self._tracer = tracer
        self._regions = regions
        self._max_tensor_bytes = max_tensor_bytes
        if regions is not None:
            regions.on_change = self.forget_plans
        self.split = Splitter(wire.REQUEST_RAW_FIELD).split
        self._plans: dict[bytes, InferPlan] = {}
        self._generation = registry.generation

    def decode(
        self, parts: wire.Parts, complete: Complete, now: float, deadline: float, size: int
    ) -> tuple[InferPlan, InferRequest]:
        """The core's request, of a message of `size` bytes, and the plan that it follows.

        Raises RequestError or ProtocolError that names the field, what was given and what was wanted.
        """
        if self._generation != self._registry.generation:
            self._plans.clear()
            self._generation = self._registry.generation
        plan = self._plans.get(parts.header) if len(parts.header) <= _MAX_HEADER_BYTES else None
        if plan is None or not (parts.raw or plan.sources):
            plan, arrays = self._make_plan(parts)
            size = max(size, held_bytes(arrays))  # strings and typed contents grow when they are read
        else:
            arrays = plan.arrays(parts.raw)
        return plan, self.request(plan, parts.id, arrays, complete, now, deadline, size)

    def request(
        self,
        plan: InferPlan,
        request_id: str,
        arrays: dict[str, np.ndarray],
        complete: Complete,
        now: float,
        deadline: float,
        size: int,
    ) -> InferRequest:
        """The core's request for arrays that have been checked, which hold `size` bytes."""
        if self._tracer.active:
            model = plan.model
            arrays = plan.in_memory(arrays)
            complete = self._tracer.traced((model.name, model.version), request_id, arrays, now, complete)
        return plan.request(arrays, complete, now, deadline, size)

    def decode_batch(self, parts: wire.Parts) -> tuple[InferPlan, dict[str, np.ndarray], int]:
        """A plan for pieces of a batch of any size, the whole batch, and its rows. Raises as `decode` does."""
        plan, arrays = self._read(parts)
        if isinstance(plan, SharedPlan) and plan.targets:
            raise InvalidRequest("outputs of a batch in pieces cannot lie in shared memory, one over the other")
        rows, plan.batch_key = plan.model.check_batch(arrays)
        return plan, plan.in_memory(arrays), rows

    def encode(
        self, plan: InferPlan, response: InferResponse, request_id: str, *, explained: bool = False
    ) -> list[Any]:
        """The pieces of the response message; `explained` puts its timing in, as the plan may want too."""
        if plan.plain and not explained:
            return plan.raw_response(response, request_id)
        arrays = _requested(plan, response)
        header = plan.header(arrays)
        header.id = request_id
        if explained or plan.explain:
            explain(header, plan.model, response)
        if plan.raw_form or not all(has_contents(dtypes.from_numpy(array.dtype)) for array in arrays.values()):
            raw = plan.placed(header, [raw_from_array(array) for array in arrays.values()])
            return wire.join(header.SerializeToString(), wire.RESPONSE_RAW_FIELD, raw)
        for output, array in zip(header.outputs, arrays.values(), strict=True):
            fill_contents(output.contents, array)
        return [header.SerializeToString()]

    def forget_plans(self) -> None:
        """Drops what was worked out: the regions have changed."""
        self._plans.clear()

    def _make_plan(self, parts: wire.Parts) -> tuple[InferPlan, dict[str, np.ndarray]]:
        plan, arrays = self._read(parts)
        plan.rows, plan.batch_key = plan.model.check(arrays)
        strings = any(array.dtype.kind == "O" for array in arrays.values())  # their content is checked every time
        outside = len(parts.raw) + len(plan.sources)  # inputs whose content is no part of the header
        if outside and outside == len(arrays) and not strings and len(parts.header) <= _MAX_HEADER_BYTES:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            self._plans[parts.header] = plan
        return plan, arrays

    def _read(self, parts: wire.Parts) -> tuple[InferPlan, dict[str, np.ndarray]]:
        """What a request says; whether its inputs fit the model is still to be checked."""
        message = wire.parse_infer_request(parts.header)
        model = self._registry.find(message.model_name, message.model_version)
        sources = windows_of(message.inputs, self._regions, "inputs")
        targets = windows_of(message.outputs, self._regions, "outputs")
        arrays = _inputs(message, parts.raw, sources, self._max_tensor_bytes)
        extra = extra_dimensions(model, arrays)
        if extra:
            arrays = {name: array.reshape(as_model(array.shape, extra)) for name, array in arrays.items()}
        priority, wait_limit_s = _scheduling(message, model)
        kind = SharedPlan if sources or targets else InferPlan
        plan = kind(
            model,
            [_planned_input(tensor, extra) for tensor in message.inputs],
            _outputs(message, model),
            raw_form=bool(parts.raw or sources or targets),
            priority=priority,
            wait_limit_s=wait_limit_s,
            use_cache=flag(message.parameters, wishes.CACHE, default=True),
            extra_dimensions=extra,
            parameters=custom_parameters(message.parameters),
            explain=flag(message.parameters, wishes.TIMING, default=False),
        )
        if isinstance(plan, SharedPlan):
            plan.share(sources, targets, self._max_tensor_bytes)
            return plan, plan.with_places(arrays)
        return plan, arrays


def _planned_input(tensor: Any, extra: int) -> PlannedInput:
    datatype = dtypes.from_name(tensor.datatype)
    shape = tuple(tensor.shape)
    # Of BOOL bytes the values have to be checked, so their size alone does not make them valid.
    size = math.prod(shape) * datatype.item_size if datatype.item_size and datatype.name != "BOOL" else -1
    return PlannedInput(tensor.name, datatype, as_model(shape, extra), size)


def _inputs(
    message: ModelInferRequest, raw: Sequence[Raw], sources: Mapping[str, Window], max_tensor_bytes: int
) -> dict[str, np.ndarray]:
    """The inputs by name; raw tensors belong to those that have no source in shared memory, in their order."""
    tensors = message.inputs
    wanted = len(tensors) - len(sources)
    if raw and len(raw) != wanted:
        raise InvalidRequest(
            f"raw_input_contents holds {len(raw)} entries for {wanted} inputs; wanted is one per input, or none"
        )
    entries = iter(raw)
    inputs: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(tensors):
        if tensor.name in inputs:
            raise InvalidRequest(f"inputs[{index}]: input {tensor.name!r} is given twice")
        try:
            if window := sources.get(tensor.name):
                inputs[tensor.name] = _shared_array(tensor, window, max_tensor_bytes)
            else:
                inputs[tensor.name] = _array(tensor, next(entries) if raw else None)
        except ProtocolError as error:
            raise InvalidRequest(f"inputs[{index}] {tensor.name!r}: {error}") from None
    return inputs


def _array(tensor: Any, raw: Raw | None) -> np.ndarray:
    datatype = dtypes.from_name(tensor.datatype)
    if raw is None:
        return array_from_contents(tensor.contents, datatype, tuple(tensor.shape))
    if tensor.HasField("contents"):
        raise InvalidRequest(
            f"input {tensor.name!r} has contents beside raw_input_contents; wanted is one form for all inputs"
        )
    return array_from_raw(raw, datatype, tuple(tensor.shape))


def _shared_array(tensor: Any, window: Window, max_tensor_bytes: int) -> Any:
    if tensor.HasField("contents"):
        raise InvalidRequest(f"input {tensor.name!r} has contents beside shared memory; wanted is one of them")
    datatype = dtypes.from_name(tensor.datatype)
    return shared_input(tensor.name, window, datatype, tuple(tensor.shape), max_tensor_bytes)


def _outputs(message: ModelInferRequest, model: Model) -> list[PlannedOutput]:
    known = model.signature.output_by_name
    outputs: dict[str, PlannedOutput] = {}
    for index, output in enumerate(message.outputs):
        where = f"outputs[{index}]"
        if output.name not in known:
            names = ", ".join(map(repr, known))
            raise InvalidRequest(f"{where}: model {model.name!r} has no output {output.name!r}; it has {names}")
        if output.name in outputs:
            raise InvalidRequest(f"{where}: output {output.name!r} is asked for twice")
        classes = 0
        if "classification" in output.parameters:
            classes = whole_number(output.parameters, "classification")
            if classes == 0:
                raise InvalidRequest(f"{where}: classification = 0; wanted is the number of classes, 1 or more")
        outputs[output.name] = PlannedOutput(output.name, classes)
    return list(outputs.values())


def _requested(plan: InferPlan, response: InferResponse) -> Mapping[str, np.ndarray]:
    outputs = plan.outputs_of(response)
    if not plan.outputs:
        return outputs
    batched = plan.model.max_batch_size > 0 and not plan.extra_dimensions
    arrays = {}
    for name, classes in plan.outputs:
        array = outputs[name]
        if classes:
            try:
                array = classify(array, classes, plan.model.labels.get(name, ()), batched=batched)
            except InvalidRequest as error:
                raise InvalidRequest(f"output {name!r}: {error}") from None
        arrays[name] = array
    return arrays


def _scheduling(message: ModelInferRequest, model: Model) -> tuple[int, float]:
    """The priority, and how long the request may wait, in seconds, from its parameters."""
    parameters = message.parameters
    if _is_sequence(parameters):
        raise NotSupported(f"model {model.name!r} keeps no state between requests; leave the sequence parameters out")
    timeout_us = whole_number(parameters, "timeout") if "timeout" in parameters else 0
    priority = whole_number(parameters, "priority") if "priority" in parameters else 0
    return priority, timeout_us / 1e6 if timeout_us else math.inf


def _is_sequence(parameters: Mapping[str, InferParameter]) -> bool:
    # A sequence id of 0 or "" means "no sequence"; some clients always send it.
    if any(parameters[key].bool_param for key in ("sequence_start", "sequence_end") if key in parameters):
        return True
    return "sequence_id" in parameters and value_of(parameters["sequence_id"]) not in (0, "")
