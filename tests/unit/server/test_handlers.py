"""What becomes of a call with many answers whose caller is gone while one is written."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest

from tests.support.slow_caller import SlowCaller
from trtserve_protos import oip, row_inference
from trtserve_server.rpc.handlers import generic_handler


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
