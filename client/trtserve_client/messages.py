"""Arrays to the bytes of an inference request, the bytes of a response to a Result. Pure; knows no channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trtserve_client.errors import BadResponse, InputError
from trtserve_client.inputs import Tensor
from trtserve_client.result import ParameterValue, Result, values_from_parameters
from trtserve_client.shared_memory import SIZE_PARAMETER, SharedRoom, SharedTensor
from trtserve_protos import dtypes, oip, tensors, wire
from trtserve_protos.errors import ProtocolError

if TYPE_CHECKING:
    from trtserve_protos.oip import InferParameter, ModelInferResponse

Parameters = Mapping[str, ParameterValue]
Outputs = Sequence[str] | Mapping[str, Parameters | SharedRoom]
"""Names of the wanted outputs, or a mapping of them to their parameters, {"scores": {"classification": 3}}, or to the
places in shared memory that they shall be written to.
"""

_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1


def infer_request(
    model: str,
    arrays: Mapping[str, Tensor],
    *,
    version: str = "",
    outputs: Outputs | None = None,
    id: str = "",
    parameters: Parameters | None = None,
) -> bytes:
    """The bytes of a ModelInferRequest whose tensors travel raw. Raises InputError for what cannot be sent."""
    header = oip.ModelInferRequest(model_name=model, model_version=version, id=id)
    raw = []
    for name, array in arrays.items():
        if isinstance(array, SharedTensor):
            tensor = header.inputs.add(name=name, datatype=array.datatype, shape=array.shape)
            fill_parameters(tensor.parameters, array.parameters())
            continue
        try:
            datatype = dtypes.from_numpy(array.dtype)
            raw.append(tensors.raw_from_array(array))
        except ProtocolError as error:
            raise InputError(f"input {name!r} cannot be sent: {error}") from error
        header.inputs.add(name=name, datatype=datatype.name, shape=array.shape)
    for name, its_parameters in _named_outputs(outputs):
        fill_parameters(header.outputs.add(name=name).parameters, its_parameters)
    fill_parameters(header.parameters, parameters or {})
    return wire.encode_infer_request(header, raw)


def stream_request(model: str, arrays: Mapping[str, Tensor], *, outputs: Outputs | None, **fields: Any) -> bytes:
    """As `infer_request`, for one of many that are under way together: their outputs cannot share a place."""
    if isinstance(outputs, Mapping) and any(isinstance(value, SharedRoom) for value in outputs.values()):
        raise InputError("outputs of a stream cannot lie in shared memory: each result would overwrite the last one")
    return infer_request(model, arrays, outputs=outputs, **fields)


def result_from_response(message: bytes | memoryview, outputs: Outputs | None = None) -> Result:
    """The Result of a ModelInferResponse, whose tensors may be raw or typed contents. Raises BadResponse.

    `outputs` are those that the request asked for, which says what lies in shared memory. What lies in that of a GPU
    is left out.
    """
    rooms = outputs if isinstance(outputs, Mapping) else {}
    try:
        header, raw = wire.decode_infer_response(message)
        arrays = _arrays_from_outputs(header, raw, rooms)
    except (ProtocolError, ImportError) as error:
        raise BadResponse(f"the server's answer cannot be read: {error}") from error
    return Result(
        arrays,
        model_name=header.model_name,
        model_version=header.model_version,
        id=header.id,
        parameters=values_from_parameters(header.parameters),
    )


def fill_parameters(target: Mapping[str, InferParameter], values: Parameters) -> None:
    """Writes `values` into a message's map of parameters. Raises InputError for a value that has no field there."""
    for name, value in values.items():
        field, sent = _parameter_field(name, value)
        setattr(target[name], field, sent)


def _arrays_from_outputs(
    header: ModelInferResponse, raw: list[memoryview], rooms: Mapping[str, object]
) -> dict[str, np.ndarray]:
    if raw and len(raw) != len(header.outputs):
        raise BadResponse(f"the server's answer has {len(raw)} raw tensors for {len(header.outputs)} outputs")
    arrays = {}
    for index, output in enumerate(header.outputs):
        datatype = dtypes.from_name(output.datatype)
        room = rooms.get(output.name)
        if isinstance(room, SharedRoom) and not room.memory.on_host:
            continue
        if isinstance(room, SharedRoom):
            size = output.parameters[SIZE_PARAMETER].int64_param if SIZE_PARAMETER in output.parameters else None
            array = room.read(output.datatype, output.shape, size)
        elif raw:
            array = tensors.array_from_raw(raw[index], datatype, output.shape)
        else:
            array = tensors.array_from_contents(output.contents, datatype, output.shape)
        array.setflags(write=False)
        arrays[output.name] = array
    return arrays


def _named_outputs(outputs: Outputs | None) -> list[tuple[str, Parameters]]:
    if outputs is None:
        return []
    if isinstance(outputs, str):
        raise InputError(f'outputs: a str given, a sequence of names wanted, for example ["{outputs}"]')
    if isinstance(outputs, Mapping):
        values = ((name, outputs[name]) for name in outputs)
        return [(name, value.parameters() if isinstance(value, SharedRoom) else value or {}) for name, value in values]
    return [(name, {}) for name in outputs]


def _parameter_field(name: str, value: object) -> tuple[str, ParameterValue]:
    """The field of InferParameter that holds `value`, and the value as protobuf wants it."""
    if isinstance(value, np.generic):
        value = value.item()
    # A bool is an int to Python and must be asked first.
    if isinstance(value, bool):
        return "bool_param", value
    if isinstance(value, int):
        if _INT64_MIN <= value <= _INT64_MAX:
            return "int64_param", value
        if 0 <= value <= _UINT64_MAX:
            return "uint64_param", value
        raise InputError(f"parameter {name!r}: {value} given, an integer of 64 bits wanted")
    if isinstance(value, float):
        return "double_param", value
    if isinstance(value, str):
        return "string_param", value
    raise InputError(f"parameter {name!r}: {type(value).__name__} given, bool, int, float or str wanted")
