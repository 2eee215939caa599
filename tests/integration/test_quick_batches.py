"""A model whose small batches are quick and whose large ones are not: where each is run, and that nobody can tell."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.oip_client import WAIT_S, arrays_of, infer_request
from trtserve_engines.engine import Arrays
from trtserve_engines.scripted_engine import ScriptedEngine
from trtserve_server.models import loader

Script = Callable[..., Any]

QUICK_ROWS = 2
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


class Threads:
    """Computes x * 10 and notes the threads that ran so many rows."""

    def __init__(self) -> None:
        self.names: list[tuple[int, str]] = []

    def compute(self, inputs: Arrays) -> dict[str, np.ndarray]:
        x = np.asarray(inputs["x"])
        self.names.append((len(x), threading.current_thread().name))
        return {"y": x * 10}


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def quick(script: Script, threads: Threads, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts a server with a model one and two rows of which count as quick, whatever this machine does meanwhile."""
    monkeypatch.setattr(loader, "quick_rows", lambda *arguments: QUICK_ROWS)

    def start(**options: Any) -> Any:
        served = script(compute=threads.compute, **{"default_max_batch_size": 8, "instances": 1, **options})
        threads.names.clear()  # those of the load
        return served

    return start


def request(number: int, rows: int) -> Any:
    return infer_request("m", {"x": np.full((rows, 4), number, np.float32)})


def number_of(future: Any, rows: int) -> int:
    y = arrays_of(future.result(WAIT_S))["y"]
    assert y.shape == (rows, 4) and len(np.unique(y)) == 1
    return int(y.flat[0])


def test_rows_decide_on_the_thread_and_not_on_the_answer(quick: Callable[..., Any], threads: Threads) -> None:
    m = quick()
    for rows in (1, 3, 2, 8, 1):
        assert number_of(m.client.future(request(rows, rows)), rows) == 10 * rows
    assert threads.names == [(1, "server"), (3, "m/1#0"), (2, "server"), (8, "m/1#0"), (1, "server")]
    stats = m.client.statistics("m")
    assert (stats.inference_count, stats.execution_count) == (15, 5)
    assert {each.batch_size: each.compute_infer.count for each in stats.batch_stats} == {1: 2, 2: 1, 3: 1, 8: 1}


def test_requests_that_wait_for_a_large_run_are_run_by_their_number(
    quick: Callable[..., Any], threads: Threads
) -> None:
    m = quick()
    for waiting in (2, 5):
        m.gate.shut()
        large = m.client.future(request(7, 8))
        held = m.gate.batch()
        small = [m.client.future(request(number, 1)) for number in range(waiting)]
        m.wait_for_queue(waiting)
        m.gate.let_pass()
        held.release()
        assert number_of(large, 8) == 70
        assert [number_of(future, 1) for future in small] == [10 * number for number in range(waiting)]
    assert threads.names == [(8, "m/1#0"), (2, "server"), (8, "m/1#0"), (5, "m/1#0")]


def test_another_instance_runs_small_ones_while_a_large_one_is_run(
    quick: Callable[..., Any], threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedEngine, "thread_choices", (1, 2))
    m = quick(instances=0)  # as many as suits the engine: two
    m.gate.shut()
    large = m.client.future(request(7, 8))
    held = m.gate.batch()
    m.gate.let_pass()
    assert number_of(m.client.future(request(1, 1)), 1) == 10
    held.release()
    assert number_of(large, 8) == 70
    assert threads.names[0] == (1, "server")


def test_deadlines_and_cancels_of_small_ones_behind_a_large_one(quick: Callable[..., Any], threads: Threads) -> None:
    m = quick()
    m.gate.shut()
    large = m.client.future(request(7, 8))
    held = m.gate.batch()
    late = m.client.future(request(1, 1), timeout=0.3)
    cancelled = m.client.future(request(2, 1))
    m.wait_for_queue(2)
    cancelled.cancel()
    assert late.code() is DEADLINE_EXCEEDED
    m.wait_for_failures(2)
    m.gate.let_pass()
    held.release()
    assert number_of(large, 8) == 70
    assert number_of(m.client.future(request(3, 1)), 1) == 30
    assert threads.names == [(8, "m/1#0"), (1, "server")]


def test_a_large_run_that_hangs_takes_its_context_along_and_the_new_one_runs_small_ones(
    quick: Callable[..., Any], threads: Threads
) -> None:
    m = quick(run_timeout_s=0.5)
    m.gate.shut()
    hanging = m.client.future(request(7, 8))
    held = m.gate.batch()
    small = m.client.future(request(1, 1))
    m.wait_for_queue(1)
    m.gate.let_pass()  # the replacement's warm-up too
    assert hanging.code() is grpc.StatusCode.INTERNAL
    assert "a run of 8 rows did not end within run_timeout_s = 0.5" in hanging.details()
    assert number_of(small, 1) == 10
    assert number_of(m.client.future(request(2, 8)), 8) == 20
    held.release()
    assert (1, "server") in threads.names and (8, "m/1#1") in threads.names
