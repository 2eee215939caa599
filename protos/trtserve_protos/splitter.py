"""Takes messages apart that are like earlier ones by comparing bytes, instead of reading them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trtserve_protos.wire import ID_FIELD, Buffer, Parts, last_text, split_fields, text

_MAX_LAYOUTS = 256
_MAX_HEADER_BYTES = 4096
_MAX_ENTRIES = 16


class _Layout(NamedTuple):
    """What messages of one length have in common: the bytes of each of `fixed`, thus the places of id and tensors."""

    fixed: list[tuple[slice, bytes]]
    id: slice | None
    raw: list[slice]
    header: bytes


class Splitter:
    """Gives the parts of requests or responses to one who gets the same message again and again with other tensors.

    Entries say how long they are, so a message as long as an earlier one that has all its bytes but the text of the
    id and the tensors differs from it in these alone: then comparing bytes does for reading them. `raw_field` is the
    number of the field with the tensors, REQUEST_RAW_FIELD or RESPONSE_RAW_FIELD.
    """

    __slots__ = ("_layouts", "_raw_field")

    def __init__(self, raw_field: int) -> None:
        self._raw_field = raw_field
        self._layouts: dict[int, _Layout] = {}  # by length

    def split(self, message: Buffer) -> Parts:
        """See wire.split_infer_request. Raises WireError."""
        layout = self._layouts.get(len(message))
        if layout is not None:
            fixed, id_slice, raw, header = layout
            for where, data in fixed:
                if message[where] != data:
                    break
            else:
                view = memoryview(message)
                request_id = "" if id_slice is None else text(message[id_slice])
                one = len(raw) == 1  # most have, and a comprehension costs more than all the rest
                return Parts(header, request_id, [view[raw[0]]] if one else [view[each] for each in raw])
        header, raw, ids = split_fields(message, self._raw_field, ID_FIELD)
        if len(header) <= _MAX_HEADER_BYTES and len(ids) <= 1 and len(raw) < _MAX_ENTRIES:
            self._remember(message, header, raw, ids)
        view = memoryview(message)
        return Parts(header, last_text(message, ids), [view[each] for each in raw])

    def _remember(self, message: Buffer, header: bytes, raw: list[slice], ids: Sequence[slice]) -> None:
        fixed = []
        start = 0
        for entry in sorted([*raw, *ids], key=lambda entry: entry.start):
            fixed.append(slice(start, entry.start))
            start = entry.stop
        if start < len(message):
            fixed.append(slice(start, len(message)))
        if len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.clear()
        known = [(where, bytes(message[where])) for where in fixed]
        self._layouts[len(message)] = _Layout(known, ids[0] if ids else None, raw, header)
