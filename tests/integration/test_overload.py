"""Too many requests, instances that hang or die: what callers are told, and that the rest is served."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from tests.models import make_models
from tests.support import half_http2
from tests.support.oip_client import WAIT_S, Client, arrays_of, infer_request
from trtserve_protos.oip import ModelInferRequest
from trtserve_server.config import BatchConfig
from trtserve_server.models.instance_group import MAX_LOST

Script = Callable[..., Any]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXPIRED = grpc.StatusCode.DEADLINE_EXCEEDED


def request(number: int, *, model: str = "m", **parameters: Any) -> ModelInferRequest:
    """One row that holds its number."""
    return infer_request(model, {"x": np.full((1, 4), number, np.float32)}, parameters=parameters)


def number_of(future: Any) -> int:
    """The number that was answered."""
    return int(arrays_of(future.result(WAIT_S))["y"][0, 0])


def pushback_ms(error: grpc.RpcError) -> int:
    return int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])


def test_a_full_queue_refuses_at_once_and_says_when_to_send_again(script: Script) -> None:
    m = script(batching=BatchConfig(max_queue_size=2))
    m.gate.shut()
    futures = [m.client.future(request(0))]
    m.gate.batch()
    for number in (1, 2):
        futures.append(m.client.future(request(number)))
        m.wait_for_queue(number)
    error = m.client.error("ModelInfer", request(3))
    assert error.code() is UNAVAILABLE
    assert pushback_ms(error) >= 1
    m.gate.open()
    assert [number_of(future) for future in futures] == [0, 1, 2]


@pytest.mark.parametrize("transport", ["auto", "asyncio"])
def test_calls_beyond_those_of_a_connection_wait_at_the_client_and_are_served(
    script: Script, connect: Callable[..., Client], transport: str
) -> None:
    m = script(default_max_batch_size=1, max_calls_per_connection=3, transport=transport)
    m.gate.shut()
    client = connect(m.server)
    futures = [client.future(request(number)) for number in range(20)]
    m.wait_for_queue(2)  # and one that runs
    for _ in range(20):
        m.client.call("ServerLive")  # on a connection of its own
    assert m.waiting == 2
    m.gate.open()
    assert [number_of(future) for future in futures] == list(range(20))


def test_a_connection_is_told_how_many_calls_it_may_have(script: Script) -> None:
    m = script(max_calls_per_connection=7)
    with half_http2.connection(m.server.url) as peer, peer.makefile("rb") as stream:
        peer.sendall(half_http2.PREFACE)
        assert half_http2.settings(stream)[half_http2.MAX_STREAMS] == 7


def test_the_memory_of_waiting_requests_is_bounded(script: Script) -> None:
    large = infer_request("m", {"x": np.zeros((1, 1000), np.float32)})
    m = script(proto=make_models.identity(), batching=BatchConfig(max_queue_bytes=5000))
    m.gate.shut()
    futures = [m.client.future(large)]
    m.gate.batch()
    futures.append(m.client.future(large))
    m.wait_for_queue(1)
    error = m.client.error("ModelInfer", large)
    assert error.code() is UNAVAILABLE
    assert "max_queue_bytes = 5000" in error.details()
    m.gate.open()
    for future in futures:
        future.result(WAIT_S)


def test_the_memory_of_requests_in_flight_is_bounded_over_all_models(script: Script, tmp_path: Path) -> None:
    other = make_models.save(make_models.identity(), tmp_path / "other.onnx")
    large = {"x": np.zeros((1, 1000), np.float32)}
    m = script(proto=make_models.identity(), beside=[str(other)], max_inflight_bytes=5000)
    m.gate.shut()
    running = m.client.future(infer_request("m", large))
    m.gate.batch()
    error = m.client.error("ModelInfer", infer_request("other", large))
    assert error.code() is UNAVAILABLE
    assert "max_inflight_bytes = 5000" in error.details()
    assert pushback_ms(error) >= 1
    m.gate.open()
    running.result(WAIT_S)
    m.client.future(infer_request("other", large)).result(WAIT_S)


@pytest.mark.parametrize(
    ("elem_type", "array", "raw"),
    [
        (TensorProto.STRING, np.full((1, 1000), b"a", object), True),
        (TensorProto.INT64, np.zeros((1, 1000), np.int64), False),
    ],
    ids=["strings", "typed contents"],
)
def test_what_grows_when_it_is_read_counts_with_the_memory_that_it_takes(
    script: Script, elem_type: int, array: np.ndarray, raw: bool
) -> None:
    message = infer_request("m", {"x": array}, raw=raw)
    limit = 2 * message.ByteSize() + 1000
    m = script(proto=make_models.identity(elem_type), max_inflight_bytes=limit)
    m.gate.shut()
    running = m.client.future(message)
    m.gate.batch()
    error = m.client.error("ModelInfer", message)
    assert error.code() is UNAVAILABLE
    assert f"max_inflight_bytes = {limit}" in error.details()
    m.gate.open()
    running.result(WAIT_S)


def test_calls_that_pile_up_while_the_loop_is_busy_are_all_answered(script: Script, connect: Any) -> None:
    m = script()
    clients = [m.client, connect(m.server), connect(m.server)]
    for client in clients:
        client.future(request(0)).result(WAIT_S)
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait(WAIT_S)

    m.server.loop.call_soon_threadsafe(block)
    assert blocked.wait(WAIT_S)
    futures = [(number, clients[number % 3].future(request(number), timeout=None)) for number in range(4500)]
    go_on.set()
    assert all(number_of(future) == number for number, future in futures)


def test_levels_can_be_configured_and_read_back(serve: Callable[..., Any], connect: Any, tmp_path: Path) -> None:
    make_models.save(make_models.identity(), tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "model.toml").write_text(
        "levels = [{ level = 2, max_queue_size = 1, default_timeout_us = 500, timeout_action = 'delay' }]\n"
        "[batching]\npriority_levels = 2\ndefault_priority_level = 2\n"
    )
    client = connect(serve(model_repository=(str(tmp_path),)))
    batching = client.call("ModelConfig", name="m").config.dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    policy = batching.priority_queue_policy[2]
    assert (policy.max_queue_size, policy.default_timeout_microseconds, policy.timeout_action) == (1, 500, policy.DELAY)
    assert number_of(client.future(request(1, priority=1))) == 1
    assert number_of(client.future(request(2, priority=9))) == 2


def test_an_instance_that_dies_fails_its_batch_alone_and_is_replaced(script: Script) -> None:
    def fails(number: int) -> Exception | None:
        if number == 1:
            raise SystemExit("the model ends its thread")
        return None

    m = script(failure=lambda number: None)
    m.gate.shut()
    running = m.client.future(request(0))
    held = m.gate.batch()
    m.engine.failure = fails
    waiting = [m.client.future(request(1))]
    m.wait_for_queue(1)
    m.gate.open()
    held.release()
    assert number_of(running) == 0
    assert waiting[0].code() is grpc.StatusCode.INTERNAL
    assert "SystemExit ended the thread" in waiting[0].details()
    assert number_of(m.client.future(request(2))) == 2


def test_a_run_that_hangs_fails_alone_and_its_instance_is_replaced(script: Script) -> None:
    m = script(run_timeout_s=0.5)
    m.gate.shut()
    hanging = m.client.future(request(1))
    m.gate.batch()
    waiting = m.client.future(request(2))
    assert hanging.code() is grpc.StatusCode.INTERNAL
    assert "did not end within run_timeout_s = 0.5" in hanging.details()
    m.gate.open()
    assert number_of(waiting) == 2
    assert number_of(m.client.future(request(3))) == 3


@pytest.mark.parametrize("max_running", [0, 1])
def test_a_hanging_instance_is_replaced_while_the_queue_is_full_and_another_model_waits(
    script: Script, tmp_path: Path, max_running: int
) -> None:
    other = make_models.save(make_models.scale(2.0), tmp_path / "double.onnx")
    m = script(
        beside=[str(other)],
        default_max_batch_size=1,
        run_timeout_s=1.0,
        max_running=max_running,
        batching=BatchConfig(max_queue_size=3),
    )
    m.gate.shut()
    hanging = m.client.future(request(1))
    held = m.gate.batch()
    waiting = [m.client.future(request(number)) for number in (2, 3, 4)]
    m.wait_for_queue(3)
    beside = m.client.future(request(5, model="double"))
    assert m.client.error("ModelInfer", request(9)).code() is UNAVAILABLE
    m.gate.let_pass()
    assert hanging.code() is grpc.StatusCode.INTERNAL
    assert [number_of(future) for future in waiting] == [2, 3, 4]
    assert number_of(beside) == 10
    held.release()  # what the lost instance brings after all is nobody's
    assert number_of(m.client.future(request(6))) == 6
    m.wait_for_failures(2)


def test_a_model_all_of_whose_instances_hang_again_and_again_is_unavailable_and_says_why(script: Script) -> None:
    end = threading.Event()

    def hangs_at_7(inputs: Any) -> dict[str, np.ndarray]:
        if inputs["x"][0, 0] == 7:
            end.wait(WAIT_S)
        return {"y": inputs["x"].copy()}

    m = script(compute=hangs_at_7, run_timeout_s=0.2, instances=1)
    try:
        codes = [m.client.error("ModelInfer", request(7)).code() for _ in range(MAX_LOST + 2)]
        assert codes == [grpc.StatusCode.INTERNAL] * (MAX_LOST + 1) + [UNAVAILABLE]
        assert "did not end within run_timeout_s" in m.client.error("ModelInfer", request(1)).details()
        assert not m.client.call("ModelReady", name="m").ready
        (entry,) = m.client.call("RepositoryIndex").models
        assert (entry.state, "did not end within run_timeout_s" in entry.reason) == ("UNAVAILABLE", True)
    finally:
        end.set()
