"""What callers can ask of trtserve beyond the protocols, by name; it parses no message.

One spelling: a parameter of a request has underscores; as metadata of a call the same name has hyphens, as HTTP headers
do, and holds "true" or "false" for every request of the call.
"""

from __future__ import annotations

TIMING = "trtserve_timing"
"""true: the answer says where its time went (timing.py)."""

CACHE = "trtserve_cache"
"""false: goes past the response cache."""

PRESERVE_ORDERING = "trtserve_preserve_ordering"
"""Of a stream, hence metadata alone. true: all answers in the order of the requests; false: none."""


def metadata_key(parameter: str) -> str:
    """The metadata key of what is called so as a parameter."""
    return parameter.replace("_", "-")
