"""HTTP/2 as far as a client of gRPC needs it, without any I/O: what came in, what happened, what is to be sent.

gRPC's own Python client takes most of a CPU for the calls that a server answers with one; this takes a third of it.
Source: RFC 9113 (frames, flow control), RFC 7541 (headers), gRPC over HTTP2 (messages, statuses).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

import grpc
from hpack import Decoder, HPACKError

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME = 3, 4, 5
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST_WINDOW, _FIRST_WINDOW = 2**31 - 1, 65_535
_REPLENISH = 2**29
_SMALL = 4096
_CANCELLED = (8).to_bytes(4, "big")
_OUR_FRAME = 16_384
_MOST_KNOWN = 64
_RESET_STATUS = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}
_STATUSES = {str(code.value[0]): code.name for code in grpc.StatusCode}


class ProtocolBroken(Exception):
    """The other side does not speak HTTP/2, or not as it should; the connection is of no more use."""


class Message(NamedTuple):
    """A message came on a stream whose messages are wanted."""

    stream: int
    data: bytes


class Ended(NamedTuple):
    """A stream ended with a status of gRPC, "OK" among them, and the server's words."""

    stream: int
    status: str
    detail: str


Event = Message | Ended


@dataclass
class _Stream:
    """A stream that is still open. `unsent` waits for the other side's window, `partial` for the rest of a message.

    Of what comes on it only `wanted` messages are kept.
    """

    several: bool
    wanted: bool
    window: int
    unsent: deque[tuple[memoryview, bool]] = field(default_factory=deque)
    partial: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    consumed: int = 0


class Http2Client:
    """One connection's state. Belongs to one thread at a time."""

    def __init__(self, headers: bytes) -> None:
        self._headers = headers
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._window, self._stream_window, self._frame = _FIRST_WINDOW, _FIRST_WINDOW, 16_384
        self._most = _LARGEST_WINDOW
        self._held: dict[int, list[bytes]] = {}
        self._decoder = Decoder()
        self._known: dict[bytes, dict[str, str]] = {}
        self._block: tuple[int, int, bytearray] | None = None
        self._input = b""
        self._consumed = 0
        self.closing = False
        """Whether the other side takes no new streams."""
        settings = struct.pack(">HIHI", 2, 0, _INITIAL_WINDOW, _LARGEST_WINDOW)
        self.output: list[bytes | memoryview] = [_PREFACE]
        self._put(_SETTINGS, 0, 0, settings)
        self._give_window(0, _LARGEST_WINDOW - _FIRST_WINDOW)

    def open(self, data: bytes, *, several: bool, wanted: bool = False) -> int:
        """Opens a stream with its first message, `several` where more follow; then, or `wanted`, answers are events."""
        number, self._next = self._next, self._next + 2
        self._streams[number] = _Stream(several, several or wanted, self._stream_window)
        if len(self._streams) - len(self._held) > self._most:
            self._held[number] = [data]
        else:
            self._begin(number, data)
        return number

    def send(self, stream: int, data: bytes) -> None:
        """Sends a further message on a stream that was opened for several."""
        if stream in self._held:
            self._held[stream].append(data)
        else:
            self._send(stream, data, end=False)

    def cancel(self, stream: int) -> None:
        """Gives a stream up: nothing more is sent or told of it."""
        if self._streams.pop(stream, None) is not None:
            if self._held.pop(stream, None) is None:
                self._put(_RST_STREAM, 0, stream, _CANCELLED)
            self._begin_held()

    def receive(self, data: bytes) -> list[Event]:
        """What happened by these bytes. Raises ProtocolBroken."""
        events: list[Event] = []
        data = self._input + data if self._input else data
        position, size = 0, len(data)
        try:
            while size - position >= 9:
                length = int.from_bytes(data[position : position + 3], "big")
                if length > _OUR_FRAME:
                    raise ProtocolBroken(f"the server does not speak HTTP/2 as it should: a frame of {length} bytes")
                if size - position < 9 + length:
                    break
                kind, flags = data[position + 3], data[position + 4]
                stream = int.from_bytes(data[position + 5 : position + 9], "big") & _LARGEST_WINDOW
                payload = data[position + 9 : position + 9 + length]
                position += 9 + length
                self._handle(kind, flags, stream, payload, events)
        except (HPACKError, struct.error, IndexError, UnicodeDecodeError) as error:
            raise ProtocolBroken(f"the server does not speak HTTP/2 as it should: {error}") from error
        self._input = data[position:]
        return events

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        if kind == _DATA:
            self._data(flags, stream, payload, events)
        elif kind == _HEADERS:
            body = _unpadded(flags, payload)
            self._block = (stream, flags, bytearray(body[5:] if flags & _PRIORITY else body))
            self._end_block(flags, events)
        elif kind == _CONTINUATION and self._block:
            self._block[2].extend(payload)
            self._end_block(flags, events)
        elif kind == _RST_STREAM:
            code = int.from_bytes(payload, "big")
            self._end(stream, _RESET_STATUS.get(code, "INTERNAL"), f"the server reset the stream, code {code}", events)
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._put(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            self._go_away(payload, events)
        elif kind == _WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big") & _LARGEST_WINDOW)

    def _begin(self, number: int, data: bytes) -> None:
        self._put(_HEADERS, _END_HEADERS, number, self._headers)
        self._send(number, data, end=not self._streams[number].several)

    def _send(self, number: int, data: bytes, *, end: bool) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        size = len(data)
        if not stream.unsent and size <= self._frame and size <= self._window and size <= stream.window:
            self._window -= size
            stream.window -= size
            self._put(_DATA, _END_STREAM if end else 0, number, data)
            return
        stream.unsent.append((memoryview(data), end))
        self._send_unsent(number, stream)

    def _send_unsent(self, number: int, stream: _Stream) -> None:
        while stream.unsent:
            data, end = stream.unsent[0]
            size = min(len(data), self._frame, self._window, stream.window)
            if size <= 0 and data:
                return
            stream.unsent.popleft()
            whole = size == len(data)
            if not whole:
                stream.unsent.appendleft((data[size:], end))
            self._window -= size
            stream.window -= size
            self._put(_DATA, _END_STREAM if end and whole else 0, number, data[:size])

    def _data(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        self._consumed += len(payload)
        if self._consumed > _REPLENISH:
            self._give_window(0, self._consumed)
            self._consumed = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.wanted:
            self._messages(number, stream, _unpadded(flags, payload), len(payload), events)
        if flags & _END_STREAM:
            self._end(number, "INTERNAL", "the server ended the stream without a status", events)

    def _messages(self, number: int, stream: _Stream, data: bytes, size: int, events: list[Event]) -> None:
        stream.consumed += size
        if stream.consumed > _REPLENISH:
            self._give_window(number, stream.consumed)
            stream.consumed = 0
        partial = stream.partial
        partial += data
        while len(partial) >= 5 and len(partial) >= 5 + (length := int.from_bytes(partial[1:5], "big")):
            events.append(Message(number, bytes(partial[5 : 5 + length])))
            del partial[: 5 + length]

    def _end_block(self, flags: int, events: list[Event]) -> None:
        if not flags & _END_HEADERS or self._block is None:
            return
        number, first_flags, block = self._block
        self._block = None
        headers = self._decoded(bytes(block))
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.headers |= headers
        if first_flags & _END_STREAM:
            self._end(number, *_status(stream.headers), events)

    def _decoded(self, block: bytes) -> dict[str, str]:
        """The headers. A block that changes no table is looked up when it comes again, until another one does."""
        if (known := self._known.get(block)) is not None:
            return known
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before = (table.maxsize, len(entries))
        newest = entries[0] if entries else None
        headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
        # Whatever is put into the table is put in front.
        unchanged = before == (table.maxsize, len(entries)) and newest is (entries[0] if entries else None)
        if not unchanged or len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        if unchanged:
            self._known[block] = headers
        return headers

    def _end(self, number: int, status: str, detail: str, events: list[Event]) -> None:
        if self._streams.pop(number, None) is not None:
            events.append(Ended(number, status, detail))
            self._held.pop(number, None)
            self._begin_held()

    def _begin_held(self) -> None:
        """Begins what the other side's limit of streams has held back, as far as it allows."""
        while self._held and len(self._streams) - len(self._held) < self._most and not self.closing:
            number = next(iter(self._held))
            first, *further = self._held.pop(number)
            self._begin(number, first)
            for data in further:
                self._send(number, data, end=False)

    def _settings(self, payload: bytes) -> None:
        for offset in range(0, len(payload) - 5, 6):
            name, value = struct.unpack_from(">HI", payload, offset)
            if name == _INITIAL_WINDOW:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif name == _MAX_FRAME:
                self._frame = value
            elif name == _MAX_STREAMS:
                self._most = value
        self._put(_SETTINGS, _ACK, 0, b"")
        self._widen(0, 0)
        self._begin_held()

    def _widen(self, number: int, size: int) -> None:
        if number:
            if (stream := self._streams.get(number)) is not None:
                stream.window += size
                self._send_unsent(number, stream)
            return
        self._window += size
        for each, stream in [*self._streams.items()]:
            if stream.unsent:
                self._send_unsent(each, stream)

    def _go_away(self, payload: bytes, events: list[Event]) -> None:
        self.closing = True
        last = int.from_bytes(payload[:4], "big") & _LARGEST_WINDOW
        for number in [number for number in self._streams if number > last or number in self._held]:
            self._end(number, "UNAVAILABLE", "the server is going away", events)

    def _give_window(self, number: int, size: int) -> None:
        self._put(_WINDOW_UPDATE, 0, number, size.to_bytes(4, "big"))

    def _put(self, kind: int, flags: int, stream: int, payload: bytes | memoryview) -> None:
        head = struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream)
        # Together where it is small: one piece less for every request.
        self.output += [head + payload] if isinstance(payload, bytes) and len(payload) < _SMALL else [head, payload]


def header_block(path: str, authority: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """The headers of a call, without use of the table, so that they are the same bytes for every call."""
    parts = [b"\x83\x86", b"\x04", _string(path), b"\x01", _string(authority)]
    standing = [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "trtserve-load")]
    for name, value in (*standing, *headers):
        parts += [b"\x00", _string(name), _string(value)]
    return b"".join(parts)


def framed(message: bytes) -> bytes:
    """A message of gRPC as it goes into a stream."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def _unpadded(flags: int, payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload


def _string(text: str) -> bytes:
    data = text.encode()
    size = len(data)
    if size < 0x7F:
        return bytes([size]) + data
    head, rest = bytearray([0x7F]), size - 0x7F
    while rest > 0x7F:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    head.append(rest)
    return bytes(head) + data


def _status(headers: dict[str, str]) -> tuple[str, str]:
    code = headers.get("grpc-status")
    if code is None:
        return "UNKNOWN", f"no status of gRPC came, but HTTP {headers.get(':status', '?')}"
    return _STATUSES.get(code, "UNKNOWN"), unquote(headers.get("grpc-message", ""))
