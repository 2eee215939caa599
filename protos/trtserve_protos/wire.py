"""The hot messages between bytes and their parts, without sending tensor bytes through protobuf.

A message with raw tensors is a small header, which protobuf reads and writes, and long `bytes` entries of one repeated
field. Reading finds those entries and hands out views of them; writing puts them behind a header. Either way each
tensor byte is touched at most once.

Source of the format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from trtserve_protos import oip, row_inference
from trtserve_protos.errors import WireError

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelInferRequest, ModelInferResponse
    from trtserve_protos.row_inference import InferRowsRequest, InferRowsResponse

Buffer = bytes | memoryview
M = TypeVar("M", bound=Message)

REQUEST_RAW_FIELD = 7
RESPONSE_RAW_FIELD = 6
ID_FIELD = 3  # in requests and in responses
_STREAM_RESPONSE_FIELD = 2
_ROWS_BATCH_FIELD = 1
_ROWS_RESPONSE_FIELD = 3

_VARINT, _FIXED64, _LENGTH_DELIMITED, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}

_MAX_FIELDS = 1 << 16
"""Of one message, far more than any model has tensors. Each costs a look and may cost a view, a hundred times the two
bytes that it takes to send one.
"""


class Parts(NamedTuple):
    """A message taken apart: its bytes without id and raw tensors, its id, and a view of each raw tensor."""

    header: bytes
    id: str
    raw: list[memoryview]


def decode_infer_request(message: bytes) -> tuple[ModelInferRequest, list[memoryview]]:
    """The request without its raw tensors, and a view of each raw tensor. Raises WireError."""
    parts = split_infer_request(message)
    request = parse_infer_request(parts.header)
    request.id = parts.id
    return request, parts.raw


def split_infer_request(message: Buffer) -> Parts:
    """The parts of a ModelInferRequest. Requests that differ in id and tensors alone have equal headers."""
    return _parts(message, REQUEST_RAW_FIELD)


def parse_infer_request(header: bytes) -> ModelInferRequest:
    """The message whose header this is. Raises WireError."""
    return parse(oip.ModelInferRequest, header)


def encode_infer_request(header: ModelInferRequest, raw: Sequence[Buffer]) -> bytes:
    """The bytes of a request whose tensors are `raw`, in the order of `header.inputs`."""
    return b"".join(join(header.SerializeToString(), REQUEST_RAW_FIELD, raw))


def decode_infer_response(message: Buffer) -> tuple[ModelInferResponse, list[memoryview]]:
    """The response without its raw tensors, and a view of each raw tensor. Raises WireError."""
    parts = _parts(message, RESPONSE_RAW_FIELD)
    response = parse(oip.ModelInferResponse, parts.header)
    response.id = parts.id
    return response, parts.raw


def split_infer_response(message: Buffer) -> Parts:
    """The parts of a ModelInferResponse, with nothing of it read but its id. Raises WireError."""
    return _parts(message, RESPONSE_RAW_FIELD)


def encode_infer_response(header: ModelInferResponse, raw: Sequence[Buffer]) -> bytes:
    """The bytes of a response whose tensors are `raw`, in the order of `header.outputs`."""
    return b"".join(join(header.SerializeToString(), RESPONSE_RAW_FIELD, raw))


def encode_stream_response(header: ModelInferResponse, raw: Sequence[Buffer]) -> bytes:
    """The bytes of a ModelStreamInferResponse that holds this response."""
    return stream_response(join(header.SerializeToString(), RESPONSE_RAW_FIELD, raw))


def stream_response(pieces: Sequence[Buffer]) -> bytes:
    """The bytes of a ModelStreamInferResponse that holds the response in `pieces`, views of bytes copied only here."""
    size = sum(map(len, pieces))
    return b"".join([entry_head(_STREAM_RESPONSE_FIELD, size), *pieces])


def decode_stream_response(message: bytes) -> tuple[str, Buffer]:
    """The error text ("" where there is none) and the bytes of the response inside a ModelStreamInferResponse."""
    header, response = _unwrapped(message, _STREAM_RESPONSE_FIELD)
    error = parse(oip.ModelStreamInferResponse, header).error_message if header else ""
    return error, response


def encode_rows_request(options: InferRowsRequest, batch: bytes) -> bytes:
    """The bytes of an InferRowsRequest with these options, for the ModelInferRequest in `batch`."""
    return b"".join(join(options.SerializeToString(), _ROWS_BATCH_FIELD, [batch]))


def decode_rows_request(message: bytes) -> tuple[InferRowsRequest, Buffer]:
    """The options of an InferRowsRequest and the bytes of the ModelInferRequest inside. Raises WireError."""
    header, batch = _unwrapped(message, _ROWS_BATCH_FIELD)
    return parse(row_inference.InferRowsRequest, header), batch


def rows_response(first_row: int, row_count: int, pieces: Sequence[Buffer]) -> bytes:
    """The bytes of an InferRowsResponse that holds the response in `pieces`, views of bytes copied only here."""
    header = row_inference.InferRowsResponse(first_row=first_row, row_count=row_count).SerializeToString()
    return b"".join([header, entry_head(_ROWS_RESPONSE_FIELD, sum(map(len, pieces))), *pieces])


def decode_rows_response(message: bytes) -> tuple[InferRowsResponse, Buffer]:
    """The row range of an InferRowsResponse and the bytes of the response inside. Raises WireError."""
    header, response = _unwrapped(message, _ROWS_RESPONSE_FIELD)
    return parse(row_inference.InferRowsResponse, header), response


def parse(cls: type[M], header: bytes) -> M:
    """The message of this class whose bytes these are. Raises WireError."""
    try:
        message: M = cls.FromString(header)
    except DecodeError as error:
        raise WireError(f"the message is not a valid {cls.__name__}: {error}") from None
    return message


def join(header: bytes, field: int, entries: Sequence[Buffer]) -> list[Buffer]:
    """The pieces of a message: `header`, then each of `entries` as an entry of length-delimited `field`."""
    pieces: list[Buffer] = [header]
    for entry in entries:
        pieces.append(entry_head(field, _size(entry)))
        pieces.append(entry)
    return pieces


def id_entry(request_id: str) -> bytes:
    """The id of a request or response as an entry of its message."""
    data = request_id.encode()
    return entry_head(ID_FIELD, len(data)) + data


def entry_head(field: int, size: int) -> bytes:
    """What stands before the `size` bytes of an entry of length-delimited `field`."""
    key = field << 3 | _LENGTH_DELIMITED
    if size <= 0x7F:
        return bytes((key, size))
    pieces = bytearray((key,))
    while size > 0x7F:
        pieces.append(size & 0x7F | 0x80)
        size >>= 7
    pieces.append(size)
    return bytes(pieces)


def _unwrapped(message: Buffer, field: int) -> tuple[bytes, Buffer]:
    """What stands beside the message in `field`, and that message, of which several entries would be pieces."""
    header, entries, _ = split_fields(message, field, field)
    view = memoryview(message)
    return header, view[entries[0]] if len(entries) == 1 else b"".join([view[entry] for entry in entries])


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def _parts(message: Buffer, raw_field: int) -> Parts:
    header, raw, ids = split_fields(message, raw_field, ID_FIELD)
    view = memoryview(message)
    return Parts(header, last_text(message, ids), [view[entry] for entry in raw])


def last_text(message: Buffer, ids: Sequence[slice]) -> str:
    """The id, in the last of the slices that are ids: it counts, but all have to be text. Raises WireError."""
    return [text(message[entry]) for entry in ids][-1] if ids else ""


def text(data: Buffer) -> str:
    """The text of an id. Raises WireError."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"the id of the message is not UTF-8: {error}") from None


def split_fields(message: Buffer, field: int, other: int) -> tuple[bytes, list[slice], list[slice]]:
    """The message without the entries of two length-delimited fields, where those of `field` are, those of `other`.

    Raises WireError. Written for speed: it runs for every message. Keys and lengths of one byte are read in place.
    """
    key, other_key = field << 3 | _LENGTH_DELIMITED, other << 3 | _LENGTH_DELIMITED
    view = memoryview(message)
    end = len(view)
    entries: list[slice] = []
    others: list[slice] = []
    kept: list[memoryview] = []
    kept_from = position = start = 0
    fields_left = _MAX_FIELDS
    try:
        while position < end and fields_left:
            fields_left -= 1
            start = position
            tag = message[position]
            position += 1
            if tag > 0x7F:
                tag, position = _read_varint(message, start)
            kind = tag & 7
            if kind == _LENGTH_DELIMITED:
                length = message[position]
                position += 1
                if length > 0x7F:
                    length, position = _read_varint(message, position - 1)
                stop = position + length
                if tag == key or tag == other_key:
                    (entries if tag == key else others).append(slice(position, stop))
                    if start != kept_from:
                        kept.append(view[kept_from:start])
                    kept_from = stop
                position = stop
            elif kind == _VARINT:
                _, position = _read_varint(message, position)
            elif kind == _START_GROUP:
                position, fields_left = _end_of_group(message, position, fields_left)
            else:
                position += _FIXED_SIZES[kind]
    except (IndexError, KeyError):
        raise WireError(
            f"the message is not valid protobuf: its field at byte {start} of {end} cannot be read"
        ) from None
    if position != end:
        raise _incomplete(start, position, end)
    if kept_from != end:
        kept.append(view[kept_from:])
    return b"".join(kept), entries, others


def _end_of_group(message: Buffer, position: int, fields_left: int) -> tuple[int, int]:
    """Where the group ends whose content begins at `position`, and how many fields may follow.

    No message here has a group, but unknown fields may.
    """
    depth = 1
    for left in range(fields_left, 0, -1):
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind == _START_GROUP:
            depth += 1
        elif kind == _END_GROUP:
            depth -= 1
            if not depth:
                return position, left - 1
        elif kind == _LENGTH_DELIMITED:
            length, position = _read_varint(message, position)
            position += length
        elif kind == _VARINT:
            _, position = _read_varint(message, position)
        else:
            position += _FIXED_SIZES[kind]
    raise _incomplete(position, position, len(message))


def _incomplete(start: int, position: int, end: int) -> WireError:
    """Why the fields of a message of `end` bytes, the last of which is from `start` to `position`, are not all."""
    if position < end:
        return WireError(f"the message has more than {_MAX_FIELDS} fields; no model has as many tensors")
    return WireError(f"the message is cut off: its field at byte {start} ends at byte {position}, the message at {end}")


def _read_varint(view: Buffer, position: int) -> tuple[int, int]:
    byte = view[position]
    if byte < 0x80:
        return byte, position + 1
    value = byte & 0x7F
    shift = 7
    while True:
        position += 1
        byte = view[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
        if shift > 63:
            raise IndexError
