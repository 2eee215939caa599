"""HTTP/2 by hand, as far as a client needs it that begins a gRPC call and goes on late or not at all; and pings."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
MAX_STREAMS = 3
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


def connection(url: str) -> socket.socket:
    """A TCP connection to HOST:PORT on which nothing has been said."""
    host, port = url.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)


def begun_call(path: str, size: int, data: bytes, metadata: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """What begins a call and its first message, of which only `data` is there although `size` bytes are promised."""
    message = b"\0" + struct.pack(">I", size) + data
    return PREFACE + _frame(SETTINGS, 0, 0, b"") + _headers(path, metadata) + _frame(DATA, 0, 1, message)


def ping(number: int) -> bytes:
    """A ping that can be told from others by its number."""
    return _frame(PING, 0, 0, struct.pack(">Q", number))


def answers_to_pings(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """PING and the ping's own payload for each that is answered, GOAWAY and its reason at the end."""
    while len(head := stream.read(9)) == 9:
        kind, flags, payload = head[3], head[4], stream.read(int.from_bytes(head[:3], "big"))
        if kind == PING and flags & _ACK:
            yield kind, payload
        elif kind == GOAWAY:
            yield kind, payload[8:]


def settings(stream: BinaryIO) -> dict[int, int]:
    """What the peer says of itself in its first frame."""
    head = stream.read(9)
    assert head[3] == SETTINGS
    return dict(struct.iter_unpack(">HI", stream.read(int.from_bytes(head[:3], "big"))))


def end_of_call() -> bytes:
    """Says that no further message of the call will come."""
    return _frame(DATA, _END_STREAM, 1, b"")


def more_room(size: int) -> bytes:
    """Lets the peer send so many bytes more than the 65,535 that it may send unasked."""
    return b"".join(_frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size)) for stream in (0, 1))


def _headers(path: str, metadata: Mapping[str, bytes]) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    pairs = [*((name, value.encode()) for name, value in fields.items()), *metadata.items()]
    return _frame(HEADERS, _END_HEADERS, 1, b"".join(_literal(name, value) for name, value in pairs))


def _literal(name: str, value: bytes) -> bytes:
    """A header as HPACK has it without a table and without compression (RFC 7541, 6.2.2)."""
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
