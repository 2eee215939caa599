"""How calls end: with when to send again."""

from __future__ import annotations

import pytest

from trtserve_server.errors import DeadlineExceeded, QueueFull, ServerOverloaded
from trtserve_server.rpc.status import trailers_of


@pytest.mark.parametrize(
    ("retry_after_s", "pushback_ms"),
    [(0.0, "1"), (1e-9, "1"), (0.0026, "3"), (0.25, "250"), (59.9994, "59999"), (1e9, "60000")],
)
def test_a_refusal_says_when_to_send_again_in_whole_milliseconds_up_to_a_minute(
    retry_after_s: float, pushback_ms: str
) -> None:
    for kind in (QueueFull, ServerOverloaded):
        error = kind("full")
        error.retry_after_s = retry_after_s
        assert trailers_of(error) == (("grpc-retry-pushback-ms", pushback_ms),)
    assert trailers_of(DeadlineExceeded("too late")) == ()
