"""One request on its way through an ensemble: each step begins as soon as its tensors are there.

Tensors pass from step to step as the arrays that they are; each step's request waits and batches at its own model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from trtserve_server.config import StepConfig
from trtserve_server.errors import Overloaded, RequestError
from trtserve_server.models.ensemble_graph import Graph
from trtserve_server.models.model import Model
from trtserve_server.request import BatchTiming, InferRequest, InferResponse, Outcome, held_bytes

Find = Callable[[str, str], Model]
"""Name and version ("" = newest) to the model that serves now. Raises RequestError."""


class EnsembleRun:
    """Runs the steps of `graph` for `request`; calls `on_done` once, with the ensemble's outputs or the first error."""

    def __init__(
        self,
        name: str,
        graph: Graph,
        request: InferRequest,
        find: Find,
        on_done: Callable[[EnsembleRun, Outcome], None],
    ) -> None:
        self.request = request
        self._name = name
        self._graph = graph
        self._find = find
        self._on_done = on_done
        self._tensors: dict[str, Any] = dict(request.inputs)
        self._missing = [len(set(step.inputs.values()) - self._tensors.keys()) for step in graph.steps]
        self._left = len(graph.steps)
        self._counted: set[str] = set()
        self._running: dict[int, tuple[Model, InferRequest]] = {}
        self._answers: list[InferResponse] = []
        self._done = False
        self._due: deque[int] = deque()
        self._launching = False

    def start(self, now: float) -> None:
        """Begins every step that needs nothing but the request's own tensors."""
        self._now = now
        self._due.extend(number for number, missing in enumerate(self._missing) if not missing)
        self._launch_due()

    def fail(self, error: RequestError) -> None:
        """Ends the run with `error` and gives up the steps that are under way."""
        self._finish(error)

    def _launch_due(self) -> None:
        """Begins what is due, one after another: a step that is answered at once must not begin the next inside it."""
        if self._launching:
            return
        self._launching = True
        while self._due and not self._done:
            self._launch(self._due.popleft())
        self._launching = False

    def _launch(self, number: int) -> None:
        step = self._graph.steps[number]
        try:
            model = self._find(step.model, step.asked_version)
            inputs = {name: self._tensors[tensor] for name, tensor in step.inputs.items()}
            request = self._step_request(inputs, partial(self._step_done, number), self._size_of(step))
            request.rows, request.batch_key = model.check(inputs)
        except RequestError as error:
            self._finish(self._at_step(number, error))
            return
        self._running[number] = model, request
        model.submit((request,))

    def _size_of(self, step: StepConfig) -> int:
        """The memory of what the step takes and none before it took; none for a piece of what is counted already."""
        if not self.request.size_bytes:
            return 0
        fresh = set(step.inputs.values()) - self._counted
        self._counted |= fresh
        return held_bytes({tensor: self._tensors[tensor] for tensor in fresh})

    def _step_request(self, inputs: Mapping[str, Any], complete: Callable[[Outcome], None], size: int) -> InferRequest:
        whole = self.request
        request = InferRequest(
            inputs,
            complete,
            arrived=self._now,
            deadline=whole.deadline,
            priority=whole.priority,
            wait_limit_s=whole.wait_limit_s,
            size_bytes=size,
        )
        request.cached_outputs = None if whole.cached_outputs is None else ()
        return request

    def _step_done(self, number: int, outcome: Outcome) -> None:
        self._running.pop(number, None)
        if self._done:
            return
        if isinstance(outcome, RequestError):
            self._finish(self._at_step(number, outcome))
            return
        self._answers.append(outcome)
        self._now = max(self._now, outcome.timing.ended)
        self._left -= 1
        made = {tensor: outcome.outputs[name] for name, tensor in self._graph.steps[number].outputs.items()}
        self._tensors |= made
        if self._left == 0:
            self._finish(self._response())
            return
        for other in sorted(taker for tensor in made for taker in self._graph.takers.get(tensor, ())):
            self._missing[other] -= 1
            if not self._missing[other]:
                self._due.append(other)
        self._launch_due()

    def _response(self) -> InferResponse:
        """The outputs, and the phases of all steps in sum, as if all the waits had come first."""
        arrived = self.request.arrived
        timings = [answer.timing for answer in self._answers]
        cut = arrived + sum(answer.batch_wait_s for answer in self._answers)
        timing = BatchTiming(
            self._name,
            self.request.rows,
            idle_since=arrived,
            cut=cut,
            started=cut + sum(answer.queue_s for answer in self._answers),
            ended=self._now,
            input_ns=sum(timing.input_ns for timing in timings),
            compute_ns=sum(timing.compute_ns for timing in timings),
            output_ns=sum(timing.output_ns for timing in timings),
        )
        outputs = {name: self._tensors[name] for name in self._graph.outputs}
        return InferResponse(outputs, arrived, timing)

    def _finish(self, outcome: Outcome) -> None:
        if self._done:
            return
        self._done = True
        running, self._running = self._running, {}
        for model, request in running.values():
            model.cancel(request)
        self._tensors = {}
        self._on_done(self, outcome)

    def _at_step(self, number: int, error: RequestError) -> RequestError:
        named = type(error)(f"ensemble {self._name!r}, {self._graph.shown(number)}: {error}")
        if isinstance(error, Overloaded) and isinstance(named, Overloaded):
            named.retry_after_s = error.retry_after_s
        return named
