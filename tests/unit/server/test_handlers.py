"""How calls end: for callers who are gone while an answer is written, and with when to send again."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest

from tests.support.slow_caller import SlowCaller
from trtserve_protos import oip, row_inference
from trtserve_server.errors import DeadlineExceeded, QueueFull, ServerOverloaded
from trtserve_server.rpc.handlers import generic_handler
from trtserve_server.rpc.status import trailers_of


async def write_to_nobody(*call: Any) -> None:
    raise grpc.aio.InternalError("what gRPC raises where a message cannot be written")


@pytest.mark.parametrize("kind", ["stream_stream", "unary_stream"])
def test_an_answer_that_cannot_be_written_is_no_internal_error(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    if kind == "stream_stream":
        path = oip.METHODS["ModelStreamInfer"].path
        service = generic_handler(oip.SERVICE, oip.METHODS, messages={}, streams={"ModelStreamInfer": write_to_nobody})
    else:
        path = row_inference.METHODS["InferRows"].path
        service = generic_handler(
            row_inference.SERVICE, row_inference.METHODS, messages={}, server_streams={"InferRows": write_to_nobody}
        )
    handler = service.service(SimpleNamespace(method=path, invocation_metadata=()))
    with caplog.at_level(logging.WARNING), pytest.raises(grpc.aio.InternalError):
        asyncio.run(getattr(handler, kind)(b"", SlowCaller().as_context()))
    assert caplog.text == ""


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
