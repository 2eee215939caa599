"""What becomes of a request whose caller is gone or whose time is over, and of those beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.oip_client import WAIT_S, Client, arrays_of, infer_request
from trtserve_protos.oip import ModelInferRequest
from trtserve_server.config import BatchConfig

Connect = Callable[..., Client]
Script = Callable[..., Any]

CANCELLED = grpc.StatusCode.CANCELLED
EXPIRED = grpc.StatusCode.DEADLINE_EXCEEDED


def request(number: int, **parameters: Any) -> ModelInferRequest:
    """One row that holds its number."""
    return infer_request("m", {"x": np.full((1, 4), number, np.float32)}, parameters=parameters)


def number_of(future: Any) -> int:
    """The number that was answered."""
    (row,) = arrays_of(future.result(WAIT_S))["y"]
    assert len(set(row)) == 1
    return int(row[0])


def in_one_batch(m: Any, numbers: Sequence[int]) -> tuple[Any, dict[int, Any]]:
    """Sends requests so that they run in one batch, which is held: the batch, and each number's future."""
    m.gate.shut()
    first = m.client.future(request(-1))
    held = m.gate.batch()
    futures = {number: m.client.future(request(number)) for number in numbers}
    m.wait_for_queue(len(numbers))
    held.release()
    batch = m.gate.batch()
    assert number_of(first) == -1
    assert sorted(batch.inputs["x"][:, 0]) == sorted(numbers)
    return batch, futures


def assert_serves(m: Any) -> None:
    m.gate.open()
    assert number_of(m.client.future(request(99))) == 99


def test_of_four_requests_in_a_batch_the_second_is_cancelled_and_the_others_are_answered(script: Script) -> None:
    m = script()
    batch, futures = in_one_batch(m, [1, 2, 3, 4])
    second = int(batch.inputs["x"][1, 0])
    futures[second].cancel()
    m.wait_for_failures(1)
    batch.release()
    assert {number: number_of(futures[number]) for number in futures if number != second} == {
        number: number for number in futures if number != second
    }
    assert futures[second].code() is CANCELLED
    assert m.engine.batches == [1, 4]
    assert_serves(m)


@pytest.mark.parametrize("row", [0, 1, 3])
def test_rows_do_not_move_when_any_one_of_them_is_cancelled(script: Script, row: int) -> None:
    m = script()
    batch, futures = in_one_batch(m, [1, 2, 3, 4])
    gone = int(batch.inputs["x"][row, 0])
    futures.pop(gone).cancel()
    m.wait_for_failures(1)
    batch.release()
    assert [number_of(future) for future in futures.values()] == list(futures)


def test_a_batch_all_of_whose_requests_are_cancelled_leaves_the_model_serving(script: Script) -> None:
    m = script()
    batch, futures = in_one_batch(m, [1, 2, 3])
    for future in futures.values():
        future.cancel()
    m.wait_for_failures(3)
    batch.release()
    assert_serves(m)


def test_a_request_that_is_cancelled_while_it_waits_is_never_run(script: Script) -> None:
    m = script()
    m.gate.shut()
    running = m.client.future(request(0))
    held = m.gate.batch()
    waiting = [m.client.future(request(number)) for number in (1, 2, 3)]
    m.wait_for_queue(3)
    waiting[1].cancel()
    m.wait_for_queue(2)
    held.release()
    assert sorted(m.gate.batch().inputs["x"][:, 0]) == [1, 3]
    m.gate.open()
    assert [number_of(future) for future in (running, waiting[0], waiting[2])] == [0, 1, 3]


def test_of_many_waiting_requests_exactly_the_cancelled_ones_are_not_run(script: Script) -> None:
    m = script()
    m.gate.shut()
    running = m.client.future(request(-1))
    m.gate.batch()
    futures = [m.client.future(request(number)) for number in range(200)]
    m.wait_for_queue(200)
    for future in futures[1::2]:
        future.cancel()
    m.wait_for_queue(100)
    m.gate.open()
    assert [number_of(future) for future in futures[::2]] == list(range(0, 200, 2))
    assert number_of(running) == -1
    assert sum(m.engine.batches) == 101


def test_a_cancelled_request_makes_room_in_the_queue(script: Script) -> None:
    m = script(batching=BatchConfig(max_queue_size=2))
    m.gate.shut()
    running = m.client.future(request(0))
    m.gate.batch()
    waiting = [m.client.future(request(number)) for number in (1, 2)]
    m.wait_for_queue(2)
    assert m.client.error("ModelInfer", request(3)).code() is grpc.StatusCode.UNAVAILABLE
    waiting[0].cancel()
    m.wait_for_queue(1)
    last = m.client.future(request(4))
    m.wait_for_queue(2)
    m.gate.open()
    assert [number_of(future) for future in (running, waiting[1], last)] == [0, 2, 4]


def test_a_client_that_disconnects_frees_what_waits_and_what_runs(script: Script, connect: Connect) -> None:
    m = script()
    m.gate.shut()
    gone = connect(m.server)
    running = gone.future(request(0))
    m.gate.batch()
    waiting = [gone.future(request(number)) for number in (1, 2)]
    stays = m.client.future(request(3))
    m.wait_for_queue(3)
    gone.close()
    m.wait_for_queue(1)
    m.wait_for_failures(3)
    m.gate.open()
    assert number_of(stays) == 3
    assert m.engine.batches == [1, 1]
    assert {future.code() for future in (running, *waiting)} == {CANCELLED}


def test_cancelled_requests_are_counted_and_their_rows_are_not(script: Script) -> None:
    m = script()
    batch, futures = in_one_batch(m, [1, 2, 3, 4])
    futures.pop(2).cancel()
    m.wait_for_failures(1)
    batch.release()
    for future in futures.values():
        future.result()
    statistics = m.client.statistics("m")
    assert statistics.inference_count == statistics.inference_stats.success.count == 4
    assert statistics.inference_stats.fail.count == 1
    assert {stats.batch_size: stats.compute_infer.count for stats in statistics.batch_stats} == {1: 1, 4: 1}


# ---- Deadlines


def test_a_request_whose_timeout_passes_while_it_waits_is_refused_and_never_run(script: Script) -> None:
    m = script()
    m.gate.shut()
    running = m.client.future(request(0))
    m.gate.batch()
    patient = m.client.future(request(1))
    error = m.client.error("ModelInfer", request(2, timeout=50_000))
    assert (error.code(), error.details()) == (
        EXPIRED,
        "the request's timeout of 50 ms passed while it waited in the queue",
    )
    m.gate.open()
    assert (number_of(running), number_of(patient)) == (0, 1)
    assert m.engine.batches == [1, 1]


def test_a_request_whose_clients_deadline_passes_while_it_waits_is_never_run(script: Script) -> None:
    m = script()
    m.gate.shut()
    running = m.client.future(request(0))
    m.gate.batch()
    assert m.client.future(request(1), timeout=0.05).code() is EXPIRED
    m.wait_for_failures(1)
    m.gate.open()
    assert number_of(running) == 0
    assert m.engine.batches == [1]


def test_the_earlier_of_timeout_and_deadline_holds(script: Script) -> None:
    m = script()
    m.gate.shut()
    running = m.client.future(request(0))
    m.gate.batch()
    assert m.client.future(request(1, timeout=60_000_000), timeout=0.05).code() is EXPIRED
    error = m.client.error("ModelInfer", request(2, timeout=50_000))
    assert (error.code(), error.details()) == (
        EXPIRED,
        "the request's timeout of 50 ms passed while it waited in the queue",
    )
    m.gate.open()
    assert number_of(running) == 0


def test_a_deadline_that_passes_in_a_batch_leaves_the_others(script: Script) -> None:
    m = script()
    m.gate.shut()
    first = m.client.future(request(0))
    held = m.gate.batch()
    others = [m.client.future(request(number)) for number in (1, 2)]
    m.wait_for_queue(2)
    late = m.client.future(request(3), timeout=0.5)
    m.wait_for_queue(3)
    held.release()
    batch = m.gate.batch()
    assert len(batch.inputs["x"]) == 3
    assert late.code() is EXPIRED
    batch.release()
    assert [number_of(future) for future in (first, *others)] == [0, 1, 2]


def test_the_most_urgent_deadline_runs_first(script: Script) -> None:
    m = script(default_max_batch_size=1)
    m.gate.shut()
    futures = [m.client.future(request(0))]
    held = m.gate.batch()
    for number, timeout_s in ((1, None), (2, 19), (3, 18)):
        futures.append(m.client.future(request(number), timeout=timeout_s))
        m.wait_for_queue(number)
    order = []
    for _ in range(3):
        held.release()
        held = m.gate.batch()
        order.append(int(held.inputs["x"][0, 0]))
    held.release()
    assert order == [3, 2, 1]
    assert [number_of(future) for future in futures] == [0, 1, 2, 3]
