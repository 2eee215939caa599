"""Takes requests apart that are like earlier ones by comparing bytes, instead of reading them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trtserve_protos.wire import (
    ID_FIELD,
    REQUEST_RAW_FIELD,
    Buffer,
    Parts,
    entry_head,
    last_text,
    split_fields,
    text,
)

_MAX_LAYOUTS = 256
_MAX_LAYOUT_BYTES = 4096


class _Layout(NamedTuple):
    """Where things are in messages of one length: `before` the id's text or the tensor, `between` these two.

    Without a tensor they are before and behind the id's text.
    """

    before: bytes
    between: bytes
    id_end: int
    header: bytes
    has_tensor: bool


class RequestSplitter:
    """split_infer_request for a server, to which clients send the same message again and again with another tensor.

    A message that ends with its one raw tensor, or has none, and is as long as an earlier one whose bytes it has, but
    for the text of the id and the tensor, differs from that in these alone: then comparing bytes does for reading them.
    """

    __slots__ = ("_layouts",)

    def __init__(self) -> None:
        self._layouts: dict[int, _Layout] = {}  # by length

    def split(self, message: Buffer) -> Parts:
        """See wire.split_infer_request. Raises WireError."""
        layout = self._layouts.get(len(message))
        if layout is not None:
            before, between, id_end, header, has_tensor = layout
            start = len(before)
            if message[:start] == before:
                if not between:
                    return Parts(header, "", [memoryview(message)[start:]] if has_tensor else [])
                tensor = id_end + len(between)
                if message[id_end:tensor] == between:
                    raw = [memoryview(message)[tensor:]] if has_tensor else []
                    return Parts(header, text(message[start:id_end]), raw)
        header, ids, raw = split_fields(message, REQUEST_RAW_FIELD, ID_FIELD)
        if len(raw) <= 1 and len(ids) <= 1 and len(header) <= _MAX_LAYOUT_BYTES:
            self._remember(message, header, ids, raw)
        return Parts(header, last_text(message, ids), raw)

    def _remember(self, message: Buffer, header: bytes, ids: Sequence[slice], raw: Sequence[memoryview]) -> None:
        tensor = len(message) - sum([data.nbytes for data in raw])
        head_of_raw = b"".join([entry_head(REQUEST_RAW_FIELD, data.nbytes) for data in raw])
        known = header + head_of_raw  # and the id's entry somewhere in it
        if ids:
            start, end = ids[0].start, ids[0].stop
            head = len(entry_head(ID_FIELD, end - start))
            before, between = bytes(message[:start]), bytes(message[end:tensor])
            found = before[: start - head] + between
        else:
            before = found = bytes(message[:tensor])
            end, between = tensor, b""
        if found == known and (between or not ids):  # the tensor comes last
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[len(message)] = _Layout(before, between, end, header, len(raw) > 0)
