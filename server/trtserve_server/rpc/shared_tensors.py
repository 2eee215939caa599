"""Where the tensors of a request lie in shared memory, read from its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from trtserve_protos.dtypes import BYTES, DataType, from_name
from trtserve_protos.tensors import array_from_raw, element_count
from trtserve_server.errors import InvalidRequest, NotSupported, RequestError
from trtserve_server.rpc.parameters import value_of, whole_number
from trtserve_server.shared_memory.regions import Regions, Window
from trtserve_server.shared_memory.tensor import SharedTensor

if TYPE_CHECKING:
    from trtserve_protos.oip import InferParameter

REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
_BOOL = from_name("BOOL")


def windows_of(tensors: Iterable[Any], regions: Regions | None, kind: str) -> dict[str, Window]:
    """The windows of those inputs or outputs of a message that lie in shared memory, by name.

    `kind` is "inputs" or "outputs", for the errors: NotSupported where shared memory is switched off, InvalidRequest
    or RegionNotFound where a parameter or a bound is wrong.
    """
    windows = {}
    for index, tensor in enumerate(tensors):
        if REGION in tensor.parameters:
            where = f"{kind}[{index}] {tensor.name!r}"
            try:
                windows[tensor.name] = _window(tensor.parameters, regions)
            except RequestError as error:
                raise type(error)(f"{where}: {error}") from None
    return windows


def shared_input(name: str, window: Window, datatype: DataType, shape: tuple[int, ...], most_bytes: int) -> Any:
    """The array of an input of at most `most_bytes`, or a SharedTensor. Raises InvalidRequest or TensorError.

    Where the values have to be checked, they are read now; else when the engine wants them.
    """
    if window.size > most_bytes:
        raise InvalidRequest(
            f"input {name!r}: {window.size} bytes in shared memory given, at most {most_bytes} wanted"
            " (max_message_bytes); send less in one request or raise it"
        )
    if datatype is BYTES or datatype is _BOOL:
        data = bytearray(window.size)
        window.read(memoryview(data))
        return array_from_raw(bytes(data), datatype, shape)
    wanted = element_count(shape) * datatype.item_size
    if window.size != wanted:
        raise InvalidRequest(
            f"input {name!r}: {SIZE} = {window.size} given, {wanted} wanted for datatype {datatype.name} and shape"
            f" {list(shape)}"
        )
    return SharedTensor(window, datatype.numpy, shape)


def _window(parameters: Mapping[str, InferParameter], regions: Regions | None) -> Window:
    if regions is None:
        raise NotSupported(
            "shared memory is switched off at this server; send the tensor in the message, or start the server with"
            " --allow-client-shared-memory"
        )
    name = value_of(parameters[REGION])
    if not isinstance(name, str):
        raise InvalidRequest(f"parameter {REGION!r} is {repr(name)[:40]}; wanted is the name of a region")
    if SIZE not in parameters:
        raise InvalidRequest(f"parameter {SIZE!r} is missing; wanted is the tensor's size in bytes")
    offset = whole_number(parameters, OFFSET) if OFFSET in parameters else 0
    return regions.window(name, offset, whole_number(parameters, SIZE))
