"""HTTP/2 by hand, as far as a client needs it that begins a gRPC call and does not go on, or goes on late."""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8
_END_STREAM, _END_HEADERS = 1, 4


def connection(url: str) -> socket.socket:
    """A TCP connection to HOST:PORT on which nothing has been said."""
    host, port = url.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)


def begun_call(path: str, size: int, data: bytes) -> bytes:
    """What begins a call and its first message, of which only `data` is there although `size` bytes are promised."""
    message = b"\0" + struct.pack(">I", size) + data
    return PREFACE + _frame(SETTINGS, 0, 0, b"") + _headers(path) + _frame(DATA, 0, 1, message)


def end_of_call() -> bytes:
    """Says that no further message of the call will come."""
    return _frame(DATA, _END_STREAM, 1, b"")


def more_room(size: int) -> bytes:
    """Lets the peer send so many bytes more than the 65,535 that it may send unasked."""
    return b"".join(_frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size)) for stream in (0, 1))


def _headers(path: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return _frame(HEADERS, _END_HEADERS, 1, b"".join(_literal(name, value) for name, value in fields.items()))


def _literal(name: str, value: str) -> bytes:
    """A header as HPACK has it without a table and without compression (RFC 7541, 6.2.2)."""
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
