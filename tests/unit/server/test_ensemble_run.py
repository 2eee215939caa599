"""One request through an ensemble, over models that a test answers by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from trtserve_server.config import ModelConfig, StepConfig
from trtserve_server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    ModelNotReady,
    QueueFull,
    RequestCancelled,
)
from trtserve_server.models.ensemble_graph import graph_of
from trtserve_server.models.ensemble_run import EnsembleRun
from trtserve_server.request import BatchTiming, InferRequest, InferResponse, Outcome
from trtserve_server.scheduling.batch import resolve


class HandModel:
    """Holds its requests until the test answers them; refuses what `refuse` says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[InferRequest] = []
        self.cancelled: list[InferRequest] = []
        self.refuse = ""
        self.at_once = False

    def check(self, inputs: Mapping[str, Any]) -> tuple[int, tuple[()]]:
        if self.refuse:
            raise InvalidRequest(self.refuse)
        return 1, ()

    def submit(self, requests: Sequence[InferRequest]) -> None:
        self.requests += requests
        if self.at_once:
            self.answer()

    def cancel(self, request: InferRequest) -> None:
        self.cancelled.append(request)
        resolve(request, RequestCancelled("given up"))

    def answer(self, number: int = -1, **outputs: Any) -> None:
        request = self.requests[number]
        outputs = outputs or {"y": request.inputs["x"]}
        timing = BatchTiming(self.name, 1, 0.0, 1.0, 2.0, 3.0, 10, 20, 30)
        resolve(request, InferResponse(outputs, request.arrived, timing))


class Running:
    """A run of the steps over hand models called as the steps say."""

    def __init__(self, *steps: tuple[str, dict[str, str], dict[str, str]], **fields: Any) -> None:
        self.models = {name: HandModel(name) for name, _, _ in steps}
        self.outcomes: list[Outcome] = []
        graph = graph_of(ModelConfig(name="e", ensemble=tuple(StepConfig(n, 0, i, o) for n, i, o in steps)))
        self.x = np.ones(3)
        self.request = InferRequest(dict.fromkeys(graph.inputs, self.x), lambda _: None, arrived=0.0, **fields)
        self.run = EnsembleRun("e", graph, self.request, self.find, lambda run, outcome: self.outcomes.append(outcome))

    def find(self, name: str, version: str) -> Any:
        if name == "gone":
            raise ModelNotReady("model 'gone' is unavailable")
        return self.models[name]


CHAIN = (("a", {"x": "in"}, {"y": "mid"}), ("b", {"x": "mid"}, {"y": "out"}))
FORK = (
    ("a", {"x": "in"}, {"y": "left"}),
    ("b", {"x": "in"}, {"y": "right"}),
    ("c", {"x": "left", "z": "right"}, {"y": "out"}),
)


def test_tensors_pass_from_step_to_step_as_they_are() -> None:
    running = Running(*CHAIN)
    running.run.start(1.0)
    assert running.models["a"].requests[0].inputs["x"] is running.x
    made = np.zeros(2)
    running.models["a"].answer(y=made)
    assert running.models["b"].requests[0].inputs["x"] is made
    running.models["b"].answer()
    (outcome,) = running.outcomes
    assert isinstance(outcome, InferResponse)
    assert list(outcome.outputs) == ["out"] and outcome.outputs["out"] is made
    timing = outcome.timing
    assert (timing.instance, timing.input_ns, timing.compute_ns, timing.output_ns) == ("e", 20, 40, 60)
    assert timing.ended == 3.0


def test_steps_run_together_where_their_inputs_allow() -> None:
    running = Running(*FORK)
    running.run.start(1.0)
    a, b, c = (running.models[name] for name in "abc")
    assert (len(a.requests), len(b.requests), len(c.requests)) == (1, 1, 0)
    b.answer()
    assert c.requests == []
    a.answer()
    assert len(c.requests) == 1
    c.answer()
    assert len(running.outcomes) == 1


def test_models_that_answer_at_once_are_no_trouble() -> None:
    running = Running(*FORK)
    for model in running.models.values():
        model.at_once = True
    running.run.start(1.0)
    assert len(running.outcomes) == 1
    assert [len(model.requests) for model in running.models.values()] == [1, 1, 1]


def test_a_long_chain_of_steps_that_are_answered_at_once_does_not_run_out_of_stack() -> None:
    steps = 400
    chain = [("a", {"x": f"t{step}"}, {"y": f"t{step + 1}"}) for step in range(steps)]
    running = Running(*chain)
    running.models["a"].at_once = True
    running.run.start(0.0)
    (outcome,) = running.outcomes
    assert isinstance(outcome, InferResponse)
    assert outcome.outputs[f"t{steps}"] is running.x


def test_deadline_priority_and_limits_reach_every_step() -> None:
    running = Running(*CHAIN, deadline=9.0, priority=2, wait_limit_s=0.5, size_bytes=50)
    running.request.cached_outputs = None
    running.run.start(1.0)
    running.models["a"].answer()
    for model, arrived in (("a", 1.0), ("b", 3.0)):
        request = running.models[model].requests[0]
        assert (request.deadline, request.priority, request.wait_limit_s) == (9.0, 2, 0.5)
        assert (request.cached_outputs, request.arrived, request.size_bytes) == (None, arrived, 24)


@pytest.mark.parametrize(("size_bytes", "counted"), [(50, [24, 0, 48]), (0, [0, 0, 0])])
def test_a_tensor_counts_with_the_first_step_that_takes_it_and_not_for_a_piece_of_what_is_counted(
    size_bytes: int, counted: list[int]
) -> None:
    running = Running(*FORK, size_bytes=size_bytes)
    running.run.start(1.0)
    running.models["a"].answer()
    running.models["b"].answer()
    assert [running.models[name].requests[0].size_bytes for name in "abc"] == counted


@pytest.mark.parametrize("error", [InferenceFailed("it broke"), DeadlineExceeded("too late")])
def test_an_error_names_the_step_and_gives_up_the_others(error: Any) -> None:
    running = Running(*FORK)
    running.run.start(1.0)
    resolve(running.models["b"].requests[0], error)
    (outcome,) = running.outcomes
    assert type(outcome) is type(error)
    assert str(outcome) == f"ensemble 'e', step 2 (model 'b'): {error}"
    assert running.models["a"].cancelled == running.models["a"].requests
    assert running.models["c"].requests == []


def test_a_step_that_is_overloaded_still_says_when_to_send_again() -> None:
    running = Running(*CHAIN)
    running.run.start(1.0)
    error = QueueFull("all places are taken")
    error.retry_after_s = 0.25
    resolve(running.models["a"].requests[0], error)
    (outcome,) = running.outcomes
    assert isinstance(outcome, QueueFull) and outcome.retry_after_s == 0.25


def test_the_waits_of_all_steps_add_up() -> None:
    running = Running(*CHAIN)
    running.request.arrived = 1.0
    running.run.start(1.0)
    for model, times in (("a", (2.0, 3.0, 3.5, 4.0)), ("b", (0.0, 5.0, 7.0, 8.0))):
        request = running.models[model].requests[0]
        timing = BatchTiming(model, 1, *times, 10, 20, 30)
        resolve(request, InferResponse({"y": running.x}, request.arrived, timing))
    (answer,) = running.outcomes
    assert isinstance(answer, InferResponse)
    # a: 1 s for an instance and 0.5 s to its start, 1 s for company; b: 2 s to its start, 1 s for company
    assert (answer.queue_s, answer.batch_wait_s) == (1.5 + 2.0, 1.0 + 1.0)
    assert (answer.timing.input_ns, answer.timing.compute_ns, answer.timing.output_ns) == (20, 40, 60)
    assert answer.timing.ended == 8.0


def test_a_step_whose_model_refuses_its_tensors_or_is_gone() -> None:
    running = Running(*CHAIN)
    running.models["b"].refuse = "shape [2] given"
    running.run.start(1.0)
    running.models["a"].answer()
    assert str(running.outcomes[0]) == "ensemble 'e', step 2 (model 'b'): shape [2] given"
    running = Running(("a", {"x": "in"}, {"y": "mid"}), ("gone", {"x": "mid"}, {"y": "out"}))
    running.run.start(1.0)
    running.models["a"].answer()
    assert isinstance(running.outcomes[0], ModelNotReady) and "step 2 (model 'gone')" in str(running.outcomes[0])


def test_a_cancelled_run_gives_up_its_steps_and_begins_no_other() -> None:
    running = Running(*FORK)
    running.run.start(1.0)
    running.models["a"].answer()
    running.run.fail(RequestCancelled("gone"))
    assert [str(outcome) for outcome in running.outcomes] == ["gone"]
    assert running.models["b"].cancelled == running.models["b"].requests
    assert running.models["c"].requests == []
    running.run.fail(RequestCancelled("again"))
    assert len(running.outcomes) == 1
