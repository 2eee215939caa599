"""A gate in front of a scripted engine's computation: holds its batches and tells when one has come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from tests.support.oip_client import WAIT_S
from trtserve_engines.engine import Arrays
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.scripted_engine import Compute, ScriptedEngine


class Gate:
    """Open at first, so that models can be tested and warmed up at load."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._arrived: SimpleQueue[Arrays] = SimpleQueue()

    def shut(self) -> None:
        """Holds every batch from now on."""
        while not self._arrived.empty():
            self._arrived.get()
        self._open.clear()

    def open(self) -> None:
        """Lets every batch through."""
        self._open.set()

    def batch(self) -> Arrays:
        """Waits until a batch has come to the gate; its inputs."""
        return self._arrived.get(timeout=WAIT_S)

    def before(self, compute: Compute) -> Compute:
        """`compute`, behind the gate."""

        def behind(inputs: Arrays) -> dict:
            self._arrived.put(inputs)
            if not self._open.wait(WAIT_S):
                raise AssertionError("the test never opened the gate")
            return compute(inputs)

        return behind


class GatedEngines:
    """Stands in for `open_engine`: every model gets a scripted engine behind one gate, with the graph's signature."""

    def __init__(self, compute: Compute, failure: Callable[[int], Exception | None] = lambda number: None) -> None:
        self.gate = Gate()
        self.opened: dict[str, ScriptedEngine] = {}
        self._compute = compute
        self._failure = failure

    def __call__(self, model: OnnxModel, **_: object) -> ScriptedEngine:
        engine = ScriptedEngine(model.signature, self.gate.before(self._compute), failure=self._failure)
        self.opened[model.path.stem] = engine
        return engine
