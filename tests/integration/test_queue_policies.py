"""Triton's queue policy on a server: priority levels, a size and a timeout for each, what a timeout does."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.oip_client import WAIT_S, arrays_of, infer_request
from trtserve_protos.oip import ModelInferRequest

Script = Callable[..., Any]

EXPIRED = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SOON_US, NEVER_US = 50_000, 3_600_000_000


def request(number: int, **parameters: Any) -> ModelInferRequest:
    """One row that holds its number."""
    return infer_request("m", {"x": np.full((1, 4), number, np.float32)}, parameters=parameters)


def number_of(future: Any) -> int:
    """The number that was answered."""
    return int(arrays_of(future.result(WAIT_S))["y"][0, 0])


class Line:
    """Requests that wait for a model whose one instance is held, and the order in which they ran."""

    def __init__(self, m: Any) -> None:
        self.m = m
        m.gate.shut()
        self.futures = [m.client.future(request(0))]
        self._held = m.gate.batch()

    def send(self, number: int, **parameters: Any) -> Any:
        """Sends a request and waits until it stands in the queue."""
        # Each may take longer than those before: gRPC rounds what it sends of a deadline, which would change the order.
        timeout = WAIT_S + len(self.futures)
        self.futures.append(self.m.client.future(request(number, **parameters), timeout=timeout))
        self.m.wait_for_queue(len(self.futures) - 1)
        return self.futures[-1]

    def wait_for_timeouts(self) -> None:
        """Waits until nothing is left to pass but the calls' own deadlines."""
        queue = self.m.server.app.registry.find("m").batcher._queue
        self.m.server.wait_until(lambda: queue.next_expiry() > monotonic() + WAIT_S / 4)

    def order(self) -> list[int]:
        """Runs them one by one; all are answered."""
        order = []
        for _ in self.futures[1:]:
            self._held.release()
            self._held = self.m.gate.batch()
            order.append(int(self._held.inputs["x"][0, 0]))
        self.m.gate.open()
        assert sorted(map(number_of, self.futures)) == sorted([0, *order])
        return order


def levels(batching: str = "", count: int = 3, default: int = 2) -> str:
    return f"""
        max_batch_size: 1
        dynamic_batching {{ priority_levels: {count} default_priority_level: {default} {batching} }}
    """


def policy(action: str, timeout_us: int, *, override: bool = False, size: int = 0) -> str:
    return f"""{{
        timeout_action: {action} default_timeout_microseconds: {timeout_us}
        allow_timeout_override: {str(override).lower()} max_queue_size: {size}
    }}"""


def test_the_most_urgent_level_runs_first_and_those_without_or_beyond_stand_on_the_default(script: Script) -> None:
    line = Line(script(config=levels()))
    for number, parameters in enumerate(({"priority": 3}, {}, {"priority": 9}, {"priority": 1}, {"priority": 2}), 1):
        line.send(number, **parameters)
    assert line.order() == [4, 2, 3, 5, 1]


def test_a_level_that_is_full_refuses_alone(script: Script) -> None:
    bound = f"priority_queue_policy {{ key: 1 value {policy('REJECT', 0, size=1)} }}"
    line = Line(script(config=levels(bound)))
    line.send(1, priority=1)
    error = line.m.client.error("ModelInfer", request(9, priority=1))
    assert error.code() is UNAVAILABLE
    assert "1 requests of priority 1 wait for this model already" in error.details()
    assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
    line.send(2)
    line.send(3, priority=3)
    assert line.order() == [1, 2, 3]


def test_a_timeout_of_a_level_refuses_where_the_action_is_reject(script: Script) -> None:
    short = f"priority_queue_policy {{ key: 2 value {policy('REJECT', SOON_US)} }}"
    line = Line(script(config=levels(short)))
    line.send(1, priority=3)
    error = line.m.client.error("ModelInfer", request(9))
    assert (error.code(), error.details()) == (
        EXPIRED,
        "the request's timeout of 50 ms passed while it waited in the queue",
    )
    assert line.order() == [1]


def test_a_timeout_puts_behind_the_level_where_the_action_is_delay(script: Script) -> None:
    delay = f"priority_queue_policy {{ key: 2 value {policy('DELAY', 0, override=True)} }}"
    line = Line(script(config=levels(delay)))
    line.send(1, priority=3)
    line.send(2, timeout=SOON_US)
    line.send(3, timeout=SOON_US)
    line.wait_for_timeouts()
    line.send(4)
    assert line.order() == [4, 2, 3, 1]


def test_a_request_that_was_put_behind_is_still_refused_at_its_deadline(script: Script) -> None:
    line = Line(script(config=levels(f"default_queue_policy {policy('DELAY', SOON_US)}")))
    error = line.m.client.error("ModelInfer", request(9), timeout=0.5)
    assert error.code() is EXPIRED
    line.m.wait_for_queue(0)
    line.m.wait_for_failures(1)
    assert line.order() == []


@pytest.mark.parametrize(
    ("default_us", "override", "asked_us", "refused"),
    [
        (0, True, SOON_US, True),
        (NEVER_US, True, SOON_US, True),
        (SOON_US, True, NEVER_US, True),  # it may be made shorter, not longer
        (NEVER_US, False, SOON_US, False),
        (0, False, SOON_US, False),
    ],
)
def test_a_request_may_shorten_its_timeout_where_the_policy_lets_it(
    script: Script, default_us: int, override: bool, asked_us: int, refused: bool
) -> None:
    line = Line(script(config=levels(f"default_queue_policy {policy('REJECT', default_us, override=override)}")))
    if refused:
        error = line.m.client.error("ModelInfer", request(9, timeout=asked_us))
        assert error.code() is EXPIRED and "timeout of 50 ms" in error.details()
        assert line.order() == []
        return
    line.send(1, timeout=asked_us)
    sentinel = line.m.client.error("ModelInfer", request(2), timeout=0.2)  # longer than what was asked for
    assert sentinel.code() is EXPIRED
    line.m.wait_for_queue(1)
    assert line.order() == [1]
