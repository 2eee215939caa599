"""What the metadata of a call asks of all its requests; the parameters of a request are the codec's matter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from trtserve_protos import wishes
from trtserve_server.errors import InvalidRequest


class CallWishes(NamedTuple):
    """`preserve_ordering` is None where each model decides."""

    timing: bool = False
    cache: bool = True
    preserve_ordering: bool | None = None


NO_WISHES = CallWishes()


def call_wishes(metadata: Iterable[tuple[str, str | bytes]] | None) -> CallWishes:
    """The wishes in a call's metadata. Raises InvalidRequest for values other than true and false."""
    given = {key: _flag(key, value) for key, value in metadata or () if key in _FIELDS}
    return CallWishes(**{_FIELDS[key]: value for key, value in given.items()}) if given else NO_WISHES


_FIELDS = {
    wishes.metadata_key(wishes.TIMING): "timing",
    wishes.metadata_key(wishes.CACHE): "cache",
    wishes.metadata_key(wishes.PRESERVE_ORDERING): "preserve_ordering",
}


def _flag(key: str, value: str | bytes) -> bool:
    if value not in ("true", "false"):
        raise InvalidRequest(f"metadata {key!r} is {repr(value)[:40]}; wanted is true or false")
    return value == "true"
