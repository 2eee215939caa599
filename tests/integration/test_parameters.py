"""Parameters of requests: those that come back, those that Triton adds, those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.models import make_models
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer

Connect = Callable[..., Client]
Serve = Callable[..., RunningServer]

X = np.ones((1, 4), np.float32)


@pytest.fixture
def client(serve: Serve, connect: Connect, tmp_path: Path) -> Client:
    return connect(serve(model=(str(make_models.save(make_models.scale(2.0), tmp_path / "m.onnx")),)))


def parameters(message: Any) -> dict[str, Any]:
    return {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in message.parameters.items()}


OWN = {"tenant": "blue", "attempt": 3, "weight": 0.5, "dry": True}


@pytest.mark.parametrize("fields", [{}, {"raw": False}, {"outputs": ["y"]}], ids=["raw", "typed", "requested"])
def test_a_callers_own_parameters_come_back(client: Client, fields: dict[str, Any]) -> None:
    request = infer_request("m", {"x": X}, parameters={**OWN, "priority": 1, "timeout": 10_000_000}, **fields)
    for _ in range(2):  # the second one follows the first one's plan
        assert parameters(client.call("ModelInfer", request)) == OWN
    assert parameters(client.call("ModelInfer", infer_request("m", {"x": X}, **fields))) == {}


@pytest.mark.parametrize("ask", [{}, {"triton_enable_empty_final_response": True}], ids=["plain", "asked"])
def test_every_answer_on_a_stream_is_its_requests_last(client: Client, ask: dict[str, Any]) -> None:
    good = infer_request("m", {"x": X}, id="a", parameters={**OWN, **ask})
    bad = infer_request("none", {"x": X}, id="b", parameters=ask)
    answers = {answer.infer_response.id: answer for answer in client.stream([good, bad])}
    assert len(answers) == 2  # no empty ones behind them
    assert parameters(answers["a"].infer_response) == {**OWN, "triton_final_response": True}
    assert answers["b"].error_message
    assert parameters(answers["b"].infer_response) == {"triton_final_response": True}


@pytest.mark.parametrize("value", ["true", 1])
def test_a_final_response_is_asked_for_by_a_boolean(client: Client, value: Any) -> None:
    request = infer_request("m", {"x": X}, parameters={"triton_enable_empty_final_response": value})
    error = client.error("ModelInfer", request)
    assert (error.code(), "not a boolean" in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"sequence_id": 5}, True),
        ({"sequence_id": "five"}, True),
        ({"sequence_start": True}, True),
        ({"sequence_end": True}, True),
        ({"sequence_id": 0, "sequence_start": False, "sequence_end": False}, False),
        ({"sequence_id": ""}, False),
    ],
)
def test_sequences_are_refused_and_no_sequence_is_not(client: Client, given: dict[str, Any], refused: bool) -> None:
    request = infer_request("m", {"x": X}, parameters=given)
    if refused:
        error = client.error("ModelInfer", request)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "'m' keeps no state between requests" in error.details()
    else:
        assert parameters(client.call("ModelInfer", request)) == {}
