"""Which requests run together, in what order, and what a failing batch takes with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from onnx import helper

from tests.models import make_models
from tests.support.oip_client import WAIT_S, Client, arrays_of, infer_request
from tests.support.running_server import RunningServer
from trtserve_protos.oip import ModelInferRequest
from trtserve_server.config import BatchConfig
from trtserve_server.models import loader

Serve = Callable[..., RunningServer]
Connect = Callable[..., Client]
Script = Callable[..., Any]

INTERNAL = grpc.StatusCode.INTERNAL
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def request(number: int, rows: int = 1, columns: int = 4, **parameters: Any) -> ModelInferRequest:
    """Rows that hold their number."""
    return infer_request("m", {"x": np.full((rows, columns), number, np.float32)}, parameters=parameters)


def answer(future: Any) -> tuple[int, tuple[int, ...]]:
    """The number and the shape that were answered."""
    array = arrays_of(future.result(WAIT_S))["y"]
    assert len(np.unique(array)) == 1
    return int(array.flat[0]), array.shape


def batches_of(m: Any, messages: Sequence[ModelInferRequest]) -> tuple[list[Any], list[dict[str, np.ndarray]]]:
    """Sends the messages while a batch runs: their futures, and the inputs of each batch that they then ran in."""
    m.gate.shut()
    first = m.client.future(request(-1, columns=2))
    held = m.gate.batch()
    futures: list[Any] = []
    for message in messages:
        futures.append(m.client.future(message, timeout=None))  # a deadline would have a say in the order
        m.wait_for_queue(len(futures))
    batches: list[dict[str, np.ndarray]] = []
    rows = sum(message.inputs[0].shape[0] for message in messages)
    while sum(len(next(iter(batch.values()))) for batch in batches) < rows:
        held.release()
        held = m.gate.batch()
        batches.append(held.inputs)
    m.gate.open()
    first.result()
    return futures, batches


def rows_of(batches: list[dict[str, np.ndarray]]) -> list[list[int]]:
    return [batch["x"][:, 0].astype(int).tolist() for batch in batches]


# ---- Who shares a batch


def test_requests_that_wait_while_a_batch_runs_share_the_next_one(script: Script) -> None:
    m = script()
    futures, batches = batches_of(m, [request(number) for number in range(6)])
    assert rows_of(batches) == [[0, 1, 2, 3, 4, 5]]
    assert [answer(future)[0] for future in futures] == [0, 1, 2, 3, 4, 5]
    stats = m.client.statistics("m")
    assert {each.batch_size: each.compute_infer.count for each in stats.batch_stats} == {1: 1, 6: 1}
    assert (stats.inference_count, stats.execution_count) == (7, 2)


def test_a_batch_is_never_larger_than_the_limit(script: Script) -> None:
    m = script(default_max_batch_size=4)
    futures, batches = batches_of(m, [request(number) for number in range(10)])
    assert rows_of(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [answer(future)[0] for future in futures] == list(range(10))


def test_a_request_is_never_split(script: Script) -> None:
    m = script(default_max_batch_size=4)
    futures, batches = batches_of(m, [request(1, rows=3), request(2, rows=3), request(3), request(4, rows=4)])
    assert rows_of(batches) == [[1, 1, 1], [2, 2, 2, 3], [4, 4, 4, 4]]
    assert [answer(future) for future in futures] == [(1, (3, 4)), (2, (3, 4)), (3, (1, 4)), (4, (4, 4))]


def test_every_request_gets_its_own_rows(script: Script) -> None:
    m = script()
    futures, batches = batches_of(m, [request(number, rows=number) for number in (3, 1, 2, 5)])
    assert rows_of(batches) == [[3, 3, 3, 1, 2, 2, 5, 5, 5, 5, 5]]
    assert [answer(future) for future in futures] == [(3, (3, 4)), (1, (1, 4)), (2, (2, 4)), (5, (5, 4))]


def test_requests_of_different_shapes_never_share_a_batch(script: Script) -> None:
    m = script()
    widths = [3, 5, 3, 4, 5]
    futures, batches = batches_of(m, [request(number, columns=width) for number, width in enumerate(widths)])
    assert sorted(rows_of(batches)) == [[0, 2], [1, 4], [3]]
    assert [answer(future) for future in futures] == [(number, (1, width)) for number, width in enumerate(widths)]


def two_free_inputs() -> onnx.ModelProto:
    """x and z in, y and w out, each as wide as it likes."""
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["z"], ["w"])]
    inputs = [make_models.tensor("x", ["batch", "n"]), make_models.tensor("z", ["batch", "m"])]
    outputs = [make_models.tensor("y", ["batch", "n"]), make_models.tensor("w", ["batch", "m"])]
    return make_models.model(nodes, inputs, outputs)


def test_the_order_of_the_inputs_in_a_request_does_not_decide_what_shares_a_batch(script: Script) -> None:
    def with_widths(x: int, z: int, names: str) -> ModelInferRequest:
        arrays = {"x": np.zeros((1, x), np.float32), "z": np.zeros((1, z), np.float32)}
        return infer_request("m", {name: arrays[name] for name in names})

    m = script(two_free_inputs(), lambda inputs: {"y": inputs["x"].copy(), "w": inputs["z"].copy()})
    m.gate.shut()
    first = m.client.future(with_widths(1, 1, "xz"))
    held = m.gate.batch()
    # In the order in which they are sent, the inputs of the first two have equal shapes; by name, the last two have.
    messages = [with_widths(3, 5, "xz"), with_widths(5, 3, "zx"), with_widths(5, 3, "xz")]
    futures = []
    for message in messages:
        futures.append(m.client.future(message, timeout=None))
        m.wait_for_queue(len(futures))
    held.release()
    m.gate.open()
    first.result()
    shapes = [[list(output.shape) for output in future.result().outputs] for future in futures]
    assert shapes == [[[1, 3], [1, 5]], [[1, 5], [1, 3]], [[1, 5], [1, 3]]]
    assert m.engine.batches == [1, 1, 2]


def test_a_model_that_is_not_batched_runs_every_request_alone(script: Script) -> None:
    m = script(make_models.identity(dims=(2, 4)))
    futures, batches = batches_of_unbatched(m, 4)
    assert batches == [1, 2, 3, 4]
    assert [answer(future) for future in futures] == [(number, (2, 4)) for number in (1, 2, 3, 4)]
    assert {each.batch_size for each in m.client.statistics("m").batch_stats} == {1}


def batches_of_unbatched(m: Any, count: int) -> tuple[list[Any], list[int]]:
    m.gate.shut()
    futures = [m.client.future(request(1, rows=2))]
    held = [m.gate.batch()]
    for number in range(2, count + 1):
        futures.append(m.client.future(request(number, rows=2), timeout=None))
        m.wait_for_queue(number - 1)
    for _ in range(count - 1):
        held[-1].release()
        held.append(m.gate.batch())
    m.gate.open()
    return futures, [int(each.inputs["x"][0, 0]) for each in held]


def test_two_instances_run_two_batches_at_the_same_time(script: Script) -> None:
    m = script(instances=2)
    m.gate.shut()
    futures, held = [], []
    for number in (1, 2):
        futures.append(m.client.future(request(number)))
        held.append(m.gate.batch())
    assert [batch.inputs["x"][0, 0] for batch in held] == [1, 2]
    held[1].release()
    assert answer(futures[1])[0] == 2
    assert not futures[0].done()
    held[0].release()
    assert answer(futures[0])[0] == 1


def test_a_model_that_is_busy_holds_up_no_other(script: Script, tmp_path: Path) -> None:
    other = make_models.save(make_models.scale(2.0), tmp_path / "other.onnx")
    m = script(beside=(str(other),))
    m.gate.shut()
    busy = m.client.future(request(1))
    m.gate.batch()
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(m.client.infer(infer_request("other", {"x": x}))["y"], 2 * x)
    assert not busy.done()
    m.gate.open()
    assert answer(busy)[0] == 1


# ---- Order and delay


def test_a_higher_priority_runs_first_and_equal_ones_in_order(script: Script) -> None:
    m = script(default_max_batch_size=1)
    priorities = {1: 3, 2: 2, 3: 3, 4: 1, 5: 2}
    futures, batches = batches_of(m, [request(number, priority=level) for number, level in priorities.items()])
    assert rows_of(batches) == [[4], [2], [5], [1], [3]]
    assert [answer(future)[0] for future in futures] == list(priorities)


def test_no_priority_is_the_highest(script: Script) -> None:
    m = script(default_max_batch_size=1)
    _, batches = batches_of(m, [request(1, priority=2), request(2), request(3, priority=1), request(4, priority=0)])
    assert rows_of(batches) == [[2], [3], [4], [1]]


HOUR_US = 3_600_000_000


def test_an_idle_instance_waits_for_a_full_batch_and_no_longer(script: Script) -> None:
    m = script(default_max_batch_size=3, batching=BatchConfig(max_queue_delay_us=HOUR_US))
    futures = [m.client.future(request(number)) for number in range(2)]
    m.wait_for_queue(2)
    futures.append(m.client.future(request(2)))
    assert [answer(future)[0] for future in futures] == [0, 1, 2]
    assert m.engine.batches == [3]


def test_an_idle_instance_takes_a_preferred_size_at_once(script: Script) -> None:
    m = script(batching=BatchConfig(max_queue_delay_us=HOUR_US, preferred_batch_sizes=(2,)))
    futures = [m.client.future(request(0))]
    m.wait_for_queue(1)
    futures.append(m.client.future(request(1)))
    assert [answer(future)[0] for future in futures] == [0, 1]
    assert m.engine.batches == [2]


def test_a_delay_that_is_over_cuts_the_batch(script: Script) -> None:
    m = script(batching=BatchConfig(max_queue_delay_us=2000))
    assert answer(m.client.future(request(7)))[0] == 7
    assert m.client.statistics("m").inference_stats.queue.ns >= 2_000_000


# ---- Overload


def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room(script: Script) -> None:
    m = script(batching=BatchConfig(max_queue_size=2))
    m.gate.shut()
    futures = [m.client.future(request(0))]
    m.gate.batch()
    futures += [m.client.future(request(number)) for number in (1, 2)]
    m.wait_for_queue(2)
    for _ in range(3):
        error = m.client.error("ModelInfer", request(3))
        assert error.code() is UNAVAILABLE
        assert "2 requests wait for this model already" in error.details()
        assert "max_queue_size" in error.details()
    assert not any(future.done() for future in futures)
    m.gate.open()
    m.wait_for_queue(0)
    assert [answer(future)[0] for future in (*futures, m.client.future(request(4)))] == [0, 1, 2, 4]
    assert m.client.statistics("m").inference_stats.fail.count == 3


# ---- Failures


def test_a_batch_that_fails_takes_no_other_with_it(script: Script) -> None:
    def fails_at_2(inputs: Any) -> dict[str, np.ndarray]:
        if 2 in inputs["x"]:
            raise ValueError("the number 2")
        return {"y": inputs["x"].copy()}

    m = script(compute=fails_at_2, default_max_batch_size=2)
    futures, batches = batches_of(m, [request(number) for number in range(6)])
    assert rows_of(batches) == [[0, 1], [2, 3], [4, 5]]
    assert [answer(futures[number])[0] for number in (0, 1, 4, 5)] == [0, 1, 4, 5]
    for future in futures[2:4]:
        assert future.code() is INTERNAL
        assert future.details() == "model 'm' failed with ValueError; the log has the details"
    assert m.client.statistics("m").inference_stats.fail.count == 2


def test_an_engine_that_says_why_it_failed_is_quoted(script: Script) -> None:
    armed: list[bool] = []
    m = script(failure=lambda number: RuntimeError("out of memory") if armed else None)
    armed.append(True)
    error = m.client.error("ModelInfer", request(1))
    assert (error.code(), error.details().partition(":")[0]) == (INTERNAL, "model 'm'")
    assert "out of memory" in error.details()
    armed.clear()
    assert answer(m.client.future(request(2)))[0] == 2


def test_a_batch_with_a_wrong_number_of_rows_is_handed_to_nobody(script: Script) -> None:
    lost: list[bool] = []
    m = script(compute=lambda inputs: {"y": inputs["x"][: 1 if lost else None].copy()})
    lost.append(True)
    futures, _ = batches_of(m, [request(1), request(2)])
    for future in futures:
        assert future.code() is INTERNAL
        assert future.details() == "model 'm': the model gave output 'y' with shape [1, 4] for a batch of 2 rows"
    lost.clear()
    assert answer(m.client.future(request(3)))[0] == 3


# ---- The real thing under load


@pytest.mark.parametrize("quick_rows", [0, 3, 8], ids=["on a thread", "on both", "on the loop"])
def test_under_load_every_answer_is_right_and_the_statistics_add_up(
    serve: Serve, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_rows: int
) -> None:
    file = make_models.save(make_models.linear(), tmp_path / "linear.onnx")
    monkeypatch.setattr(loader, "quick_rows", lambda *arguments: quick_rows)
    server = serve(model=(str(file),), default_max_batch_size=8)
    clients = [connect(server) for _ in range(4)]
    random = np.random.default_rng(0)
    weights = random.standard_normal((16, 8)).astype(np.float32)  # those of make_models.linear()
    inputs = [random.standard_normal((int(random.integers(1, 9)), 16)).astype(np.float32) for _ in range(400)]

    def ask(number: int) -> np.ndarray:
        return clients[number % 4].infer(infer_request("linear", {"x": inputs[number]}))["y"]

    with ThreadPoolExecutor(16) as pool:
        for x, y in zip(inputs, pool.map(ask, range(len(inputs))), strict=True):
            np.testing.assert_allclose(y, x @ weights, rtol=1e-4, atol=1e-5)
    stats = clients[0].statistics("linear")
    batches = {each.batch_size: each.compute_infer.count for each in stats.batch_stats}
    assert stats.inference_count == sum(len(x) for x in inputs) == sum(size * n for size, n in batches.items())
    assert stats.inference_stats.success.count == len(inputs)
    assert stats.execution_count == sum(batches.values()) <= len(inputs)
    assert max(batches) <= 8
