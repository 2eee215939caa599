"""An instance's context is used by its thread and, while that is idle, on the reactor's; after the stop by nobody."""

import threading
from queue import SimpleQueue

import numpy as np
import pytest

from tests.support.manual_reactor import ManualReactor
from trtserve_engines.engine import BatchResult
from trtserve_engines.errors import ExecutionError
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.device import Device
from trtserve_server.scheduling.instance import InlineInstance, Reports, ThreadInstance

WAIT_S = 60.0


class Context:
    """Gives the input back, and notes the thread of each call."""

    def __init__(self):
        self.made = threading.current_thread().name
        self.ran = []
        self.closed = None

    def run(self, parts, threads=0):
        assert self.closed is None
        self.ran.append(threading.current_thread().name)
        return BatchResult(dict(parts[0]), 1, 2, 3)

    def close(self):
        assert self.closed is None
        self.closed = threading.current_thread().name


class PostingReactor(ManualReactor):
    """Hands what is posted to the test, which waits for it."""

    def __init__(self):
        super().__init__()
        self.posted = SimpleQueue()

    def post(self, call, *arguments):
        self.posted.put(arguments)


def batch():
    return Batch([InferRequest({"x": np.ones((1, 2))}, lambda outcome: None, arrived=0.0)])


@pytest.fixture
def contexts():
    return []


@pytest.fixture
def made(contexts):
    def make(kind):
        def create():
            contexts.append(Context())
            return contexts[-1]

        reactor = PostingReactor()
        reports = Reports(*[lambda *arguments: None] * 3)
        return kind("m#0", Device("cpu", reactor), create, reactor, reports), reactor.posted

    return make


def test_both_threads_use_one_context_in_turn(made, contexts):
    instance, posted = made(ThreadInstance)
    instance.start()
    assert posted.get(timeout=WAIT_S) == (instance, None)
    for _ in range(2):
        assert instance.run_here(batch()).outputs["x"].shape == (1, 2)
        instance.run(batch())
        assert isinstance(posted.get(timeout=WAIT_S)[2], BatchResult)
    instance.stop()
    assert instance.join(WAIT_S)
    (context,) = contexts
    here = threading.current_thread().name
    assert (context.made, context.ran, context.closed) == ("m#0", [here, "m#0"] * 2, "m#0")


@pytest.mark.parametrize("kind", [ThreadInstance, InlineInstance])
def test_nothing_is_run_once_it_is_to_stop(made, contexts, kind):
    instance, posted = made(kind)
    instance.start()
    if kind is ThreadInstance:
        posted.get(timeout=WAIT_S)
    instance.stop()
    outcome = instance.run_here(batch())
    assert isinstance(outcome, ExecutionError) and "m#0 has stopped" in str(outcome)
    assert instance.join(WAIT_S)
    assert not contexts[0].ran and contexts[0].closed
