"""An ensemble as a model: requests that it cannot answer in time are refused before any step runs."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.manual_reactor import ManualReactor
from trtserve_engines.signature import Signature, TensorSpec
from trtserve_server.config import ModelConfig, StepConfig
from trtserve_server.errors import DeadlineExceeded
from trtserve_server.models.ensemble import EnsembleModel, LoadedEnsemble
from trtserve_server.models.ensemble_graph import graph_of
from trtserve_server.request import BatchTiming, InferRequest, InferResponse
from trtserve_server.scheduling.batch import resolve

FLOAT = np.dtype(np.float32)


class Part:
    """A model whose requests a test answers: each waits for `wait_s` and runs for `run_s`."""

    max_batch_size = 8
    depth = 0
    device = "cpu"

    def __init__(self, name, reactor):
        self.name, self.reactor = name, reactor
        self.signature = Signature((TensorSpec("x", FLOAT, (-1, 4)),), (TensorSpec("y", FLOAT, (-1, 4)),))
        self.requests = []

    def check(self, inputs):
        return 1, ()

    def submit(self, requests):
        self.requests += requests

    def answer(self, wait_s, run_s):
        request = self.requests.pop()
        self.reactor.advance(wait_s + run_s)
        ended = self.reactor.now()
        timing = BatchTiming(self.name, 1, request.arrived, request.arrived, ended - run_s, ended, 1, 1, 1)
        resolve(request, InferResponse({"y": request.inputs["x"]}, request.arrived, timing))


class Rig:
    """An ensemble of two steps, one after the other."""

    def __init__(self):
        self.reactor = ManualReactor()
        self.parts = {name: Part(name, self.reactor) for name in "ab"}
        steps = (StepConfig("a", 0, {"x": "in"}, {"y": "mid"}), StepConfig("b", 0, {"x": "mid"}, {"y": "out"}))
        config = ModelConfig(name="e", ensemble=steps)
        source = SimpleNamespace(name="e", version="1", config=config)
        loaded = LoadedEnsemble(source, graph_of(config), {}, 0.0)
        self.model = EnsembleModel(loaded, lambda name, version: self.parts[name], self.reactor)
        self.outcomes = []

    def submit(self, deadline_s=math.inf):
        now = self.reactor.now()
        inputs = {"in": np.ones((1, 4), np.float32)}
        self.model.submit([InferRequest(inputs, self.outcomes.append, arrived=now, deadline=now + deadline_s)])

    def run_once(self, wait_s=0.0, run_s=0.1):
        self.submit()
        for part in self.parts.values():
            part.answer(wait_s, run_s)
        assert isinstance(self.outcomes.pop(), InferResponse)


def test_a_deadline_shorter_than_all_steps_is_refused_before_any_runs():
    rig = Rig()
    rig.run_once()
    rig.submit(deadline_s=0.15)
    (error,) = rig.outcomes
    assert isinstance(error, DeadlineExceeded)
    assert str(error).startswith("model 'e': 150 ms are left, but ")
    assert "the run of the model 200 ms" in str(error)
    assert rig.parts["a"].requests == []
    assert rig.model.statistics.failures == {"REJECTED": 1}


@pytest.mark.parametrize("deadline_s", [0.21, math.inf])
def test_a_deadline_that_all_steps_fit_is_taken(deadline_s):
    rig = Rig()
    rig.run_once()
    rig.submit(deadline_s)
    assert rig.outcomes == []
    assert len(rig.parts["a"].requests) == 1


def test_waits_of_earlier_requests_do_not_count_as_their_run():
    rig = Rig()
    rig.run_once(wait_s=5.0)
    rig.submit(deadline_s=0.21)
    assert rig.outcomes == []


def test_after_a_while_without_runs_it_is_tried_again():
    rig = Rig()
    rig.run_once()
    rig.reactor.advance(1.5)
    rig.submit(deadline_s=0.15)
    assert rig.outcomes == []


def test_a_deadline_that_is_past_is_refused():
    rig = Rig()
    rig.submit(deadline_s=0.0)
    assert str(rig.outcomes[0]) == "model 'e': the deadline had passed before the request was queued"
