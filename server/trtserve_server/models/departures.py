"""Models on their way out: drains them, frees them on a thread, and knows when nothing is left to be answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from trtserve_server.models.memory import give_back_memory
from trtserve_server.models.model import Model
from trtserve_server.scheduling.reactor import Reactor


class Departures:
    """Belongs to the scheduling thread, but for `close`. Freeing runs in `freeing` and waits `patience_s` for a run."""

    def __init__(self, reactor: Reactor, freeing: Executor, patience_s: float) -> None:
        self._reactor = reactor
        self._freeing = freeing
        self._patience_s = patience_s
        self._stopping = False
        self._kept: set[Model] = set()
        self._on_none: Callable[[], None] | None = None
        self.draining: set[Model] = set()
        """Those that take nothing new and have not answered all that they accepted."""

    def drain(self, model: Model, then: Callable[[], None]) -> None:
        """Takes nothing new for a model; calls `then` once it has answered all that it accepted."""
        self.draining.add(model)

        def drained() -> None:
            self.draining.discard(model)
            then()
            self._look()

        model.drain(drained)

    def free(self, model: Model, then: Callable[[], None] = lambda: None) -> None:
        """Ends a model that runs nothing any more; calls `then` when its memory is given back."""
        model.stop()
        if self._stopping:
            self._kept.add(model)
            then()
        else:
            self._freeing.submit(self._free, model, then)

    def when_none(self, call: Callable[[], None]) -> None:
        """Has `call` called once no model drains, which may be at once."""
        self._on_none = call
        self._look()

    def stop(self) -> None:
        """Frees nothing from now on: `close` frees it with the others."""
        self._stopping = True

    def close(self, models: Iterable[Model], timeout_s: float) -> bool:
        """Waits for the instances of `models` and of what is not freed, and frees them; False where one still runs.

        Blocks; from any thread.
        """
        ended = [model.close(timeout_s) for model in {*models} | self._kept]
        return all(ended)

    def _free(self, model: Model, then: Callable[[], None]) -> None:
        """On a thread of `freeing`."""
        model.close(self._patience_s)
        give_back_memory()
        self._reactor.post(then)

    def _look(self) -> None:
        if self._on_none and not self.draining:
            on_none, self._on_none = self._on_none, None
            on_none()
