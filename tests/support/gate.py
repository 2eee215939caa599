"""A gate in front of a scripted engine's computation: holds its batches, tells when one has come, lets it go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from tests.support.oip_client import WAIT_S
from trtserve_engines.engine import Arrays, Engine
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.open_engine import open_engine
from trtserve_engines.scripted_engine import Compute, ScriptedEngine


class Held:
    """A batch that waits at the gate."""

    def __init__(self, inputs: Arrays) -> None:
        self.inputs = inputs
        self._released = threading.Event()

    def release(self) -> None:
        """Lets the batch go on."""
        self._released.set()

    def wait(self) -> None:
        """On the engine's thread: until the batch may go on."""
        if not self._released.wait(WAIT_S):
            raise AssertionError("the test never released the batch")


class Gate:
    """Open at first, so that models can be tested and warmed up at load."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_shut = False
        self._arrived: SimpleQueue[Held] = SimpleQueue()
        self._all: list[Held] = []

    def shut(self) -> None:
        """Holds every batch from now on."""
        with self._lock:
            self._is_shut = True

    def open(self) -> None:
        """Lets every batch go on, and every later one."""
        with self._lock:
            self._is_shut = False
            for held in self._all:
                held.release()

    def let_pass(self) -> None:
        """Lets every later batch go on; those that are held stay."""
        with self._lock:
            self._is_shut = False

    def batch(self) -> Held:
        """Waits until another batch is held."""
        return self._arrived.get(timeout=WAIT_S)

    def before(self, compute: Compute) -> Compute:
        """`compute`, behind the gate."""

        def behind(inputs: Arrays) -> dict:
            self._pass(inputs)
            return compute(inputs)

        return behind

    def _pass(self, inputs: Arrays) -> None:
        with self._lock:
            if not self._is_shut:
                return
            held = Held(inputs)
            self._all.append(held)
        self._arrived.put(held)
        held.wait()


class GatedEngines:
    """Stands in for `open_engine`: the model "m" gets a scripted engine behind a gate, every other one its real one."""

    def __init__(self, compute: Compute, failure: Callable[[int], Exception | None] = lambda number: None) -> None:
        self.gate = Gate()
        self.engine: ScriptedEngine | None = None
        self._compute = compute
        self._failure = failure

    def __call__(self, model: OnnxModel, **options: Any) -> Engine:
        if model.path.stem != "m":
            return open_engine(model, **options)
        self.engine = ScriptedEngine(model.signature, self.gate.before(self._compute), failure=self._failure)
        return self.engine
