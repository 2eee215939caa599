"""Between the protocol's inference messages and the core's requests: arrays out of the message, arrays into the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trtserve_protos import dtypes, oip
from trtserve_protos.errors import ProtocolError
from trtserve_protos.tensors import (
    array_from_contents,
    array_from_raw,
    fill_contents,
    has_contents,
    raw_from_array,
)
from trtserve_server.errors import InvalidRequest, NotSupported
from trtserve_server.models.served_model import ServedModel
from trtserve_server.request import Complete, InferRequest, InferResponse
from trtserve_server.rpc.classification import classify

if TYPE_CHECKING:
    from trtserve_protos.oip import InferParameter, ModelInferRequest, ModelInferResponse

Raw = bytes | memoryview


def request_from_message(
    message: ModelInferRequest,
    raw: Sequence[Raw],
    model: ServedModel,
    complete: Complete,
    *,
    now: float,
    time_left_s: float | None,
) -> InferRequest:
    """The core's request. Raises InvalidRequest that names the field, what was given and what was wanted."""
    deadline = math.inf if time_left_s is None else now + time_left_s
    priority = 1
    if message.parameters:
        parameters = message.parameters
        if "timeout" in parameters and (timeout_us := _whole_number(parameters, "timeout")):
            deadline = min(deadline, now + timeout_us / 1e6)
        if "priority" in parameters:
            priority = _whole_number(parameters, "priority") or 1
        if _is_sequence(parameters):
            raise NotSupported(f"model {model.name!r} keeps no state between requests; leave the sequence parameters out")
    _check_outputs(message, model)
    inputs = _inputs(message, raw)
    return InferRequest(inputs, complete, arrived=now, deadline=deadline, priority=priority)


def response_parts(
    message: ModelInferRequest, raw_form: bool, model: ServedModel, response: InferResponse
) -> tuple[ModelInferResponse, list[Raw]]:
    """The response without its raw tensors, and those tensors; typed contents where the request had them."""
    answer = oip.ModelInferResponse(model_name=model.name, model_version=model.version, id=message.id)
    arrays = _requested(message, model, response)
    raw_form = raw_form or not all(has_contents(dtypes.from_numpy(array.dtype)) for array in arrays.values())
    raw: list[Raw] = []
    for name, array in arrays.items():
        output = answer.outputs.add(name=name, datatype=dtypes.from_numpy(array.dtype).name)
        output.shape.extend(array.shape)
        if raw_form:
            raw.append(raw_from_array(array))
        else:
            fill_contents(output.contents, array)
    return answer, raw


def _inputs(message: ModelInferRequest, raw: Sequence[Raw]) -> dict[str, np.ndarray]:
    tensors = message.inputs
    if raw and len(raw) != len(tensors):
        raise InvalidRequest(
            f"raw_input_contents holds {len(raw)} entries for {len(tensors)} inputs; wanted is one per input, or none"
        )
    inputs: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(tensors):
        name = tensor.name
        if name in inputs:
            raise InvalidRequest(f"inputs[{index}]: input {name!r} is given twice")
        try:
            inputs[name] = _array(tensor, raw[index] if raw else None)
        except ProtocolError as error:
            raise InvalidRequest(f"inputs[{index}] {name!r}: {error}") from None
    return inputs


def _array(tensor: Any, raw: Raw | None) -> np.ndarray:
    datatype = dtypes.from_name(tensor.datatype)
    if tensor.parameters and "shared_memory_region" in tensor.parameters:
        raise NotSupported("shared memory is not offered by this version of trtserve; send the tensor in the message")
    if raw is None:
        return array_from_contents(tensor.contents, datatype, tuple(tensor.shape))
    if tensor.HasField("contents"):
        raise InvalidRequest(
            f"input {tensor.name!r} has contents beside raw_input_contents; wanted is one form for all inputs"
        )
    return array_from_raw(raw, datatype, tuple(tensor.shape))


def _check_outputs(message: ModelInferRequest, model: ServedModel) -> None:
    known = model.signature.output_by_name
    seen = set()
    for index, output in enumerate(message.outputs):
        if output.name not in known:
            raise InvalidRequest(
                f"outputs[{index}]: model {model.name!r} has no output {output.name!r}; it has"
                f" {', '.join(map(repr, known))}"
            )
        if output.name in seen:
            raise InvalidRequest(f"outputs[{index}]: output {output.name!r} is asked for twice")
        if "shared_memory_region" in output.parameters:
            raise NotSupported("shared memory is not offered by this version of trtserve; take the tensor in the message")
        if "classification" in output.parameters and _whole_number(output.parameters, "classification") == 0:
            raise InvalidRequest(f"outputs[{index}]: classification = 0; wanted is the number of classes, 1 or more")
        seen.add(output.name)


def _requested(message: ModelInferRequest, model: ServedModel, response: InferResponse) -> Mapping[str, np.ndarray]:
    if not message.outputs:
        return response.outputs
    arrays = {}
    for output in message.outputs:
        array = response.outputs[output.name]
        if "classification" in output.parameters:
            count = _whole_number(output.parameters, "classification")
            array = classify(array, count, model.labels.get(output.name, ()), batched=model.max_batch_size > 0)
        arrays[output.name] = array
    return arrays


def _is_sequence(parameters: Mapping[str, InferParameter]) -> bool:
    # A sequence id of 0 or "" means "no sequence"; some clients always send it.
    if any(parameters[key].bool_param for key in ("sequence_start", "sequence_end") if key in parameters):
        return True
    return "sequence_id" in parameters and _value(parameters["sequence_id"]) not in (0, "")


def _whole_number(parameters: Mapping[str, InferParameter], key: str) -> int:
    value = _value(parameters[key])
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest(f"parameter {key!r} is {value!r}; wanted is a whole number of 0 or more")
    return value


def _value(parameter: InferParameter) -> bool | int | str | float | None:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)
