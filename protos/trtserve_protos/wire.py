"""The hot messages between bytes and their parts, without sending tensor bytes through protobuf.

A message with raw tensors is a small header, which protobuf reads and writes, and long `bytes` entries of one repeated
field. `split` finds those entries and hands out views of them; `join` puts them behind a header. Both directions touch
each tensor byte at most once.

Source of the format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from trtserve_protos import oip
from trtserve_protos.errors import WireError

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelInferRequest, ModelInferResponse

Buffer = bytes | memoryview
M = TypeVar("M", bound=Message)

_REQUEST_RAW_FIELD = 7
_RESPONSE_RAW_FIELD = 6
_STREAM_RESPONSE_FIELD = 2

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


def decode_infer_request(message: bytes) -> tuple[ModelInferRequest, list[memoryview]]:
    """The request without its raw tensors, and a view of each raw tensor. Raises WireError."""
    header, raw = split(message, _REQUEST_RAW_FIELD)
    return _parse(oip.ModelInferRequest, header), raw


def encode_infer_request(header: ModelInferRequest, raw: Sequence[Buffer]) -> bytes:
    """The bytes of a request whose tensors are `raw`, in the order of `header.inputs`."""
    return b"".join(join(header.SerializeToString(), _REQUEST_RAW_FIELD, raw))


def decode_infer_response(message: Buffer) -> tuple[ModelInferResponse, list[memoryview]]:
    """The response without its raw tensors, and a view of each raw tensor. Raises WireError."""
    header, raw = split(message, _RESPONSE_RAW_FIELD)
    return _parse(oip.ModelInferResponse, header), raw


def encode_infer_response(header: ModelInferResponse, raw: Sequence[Buffer]) -> bytes:
    """The bytes of a response whose tensors are `raw`, in the order of `header.outputs`."""
    return b"".join(join(header.SerializeToString(), _RESPONSE_RAW_FIELD, raw))


def encode_stream_response(header: ModelInferResponse, raw: Sequence[Buffer]) -> bytes:
    """The bytes of a ModelStreamInferResponse that holds this response; the tensors are still copied only once."""
    pieces = join(header.SerializeToString(), _RESPONSE_RAW_FIELD, raw)
    length = sum(map(len, pieces))
    return b"".join([_key(_STREAM_RESPONSE_FIELD), _varint(length), *pieces])


def decode_stream_response(message: bytes) -> tuple[str, bytes | memoryview]:
    """The error text ("" where there is none) and the bytes of the response inside a ModelStreamInferResponse."""
    header, responses = split(message, _STREAM_RESPONSE_FIELD)
    error = _parse(oip.ModelStreamInferResponse, header).error_message
    return error, responses[-1] if responses else b""


def split(message: Buffer, field: int) -> tuple[bytes, list[memoryview]]:
    """The message without the entries of length-delimited `field`, and views of those entries. Raises WireError."""
    view = memoryview(message)
    end = len(view)
    entries: list[memoryview] = []
    header: list[memoryview] = []
    kept_from = position = 0
    try:
        while position < end:
            start = position
            key, position = _read_varint(view, position)
            kind = key & 7
            if kind == _LENGTH_DELIMITED:
                length, position = _read_varint(view, position)
                if key >> 3 == field:
                    entries.append(view[position : position + length])
                    header.append(view[kept_from:start])
                    kept_from = position + length
                position += length
            elif kind == _VARINT:
                _, position = _read_varint(view, position)
            else:
                position += _FIXED_SIZES[kind]
    except (IndexError, KeyError):
        raise WireError(f"the message is not valid protobuf: its field at byte {start} of {end} cannot be read") from None
    if position != end:
        raise WireError(f"the message is cut off: its field at byte {start} ends at byte {position}, the message at {end}")
    header.append(view[kept_from:])
    return b"".join(header), entries


def join(header: bytes, field: int, entries: Sequence[Buffer]) -> list[Buffer]:
    """The pieces of a message: `header`, then each of `entries` as an entry of length-delimited `field`."""
    key = _key(field)
    pieces: list[Buffer] = [header]
    for entry in entries:
        pieces.append(key + _varint(len(entry)))
        pieces.append(entry)
    return pieces


def _parse(cls: type[M], header: bytes) -> M:
    try:
        message: M = cls.FromString(header)
    except DecodeError as error:
        raise WireError(f"the message is not a valid {cls.__name__}: {error}") from None
    return message


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
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


def _key(field: int) -> bytes:
    return bytes([field << 3 | _LENGTH_DELIMITED])


def _varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)
