"""Which requests are traced: settings for all models and for single ones, which can be changed while the server runs.

What is recorded of a request, and how it is written, is `trace_file`'s matter. Belongs to the scheduling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

import numpy as np

from trtserve_server.config import TraceConfig
from trtserve_server.request import Complete, Outcome
from trtserve_server.trace_file import Trace

Write = Callable[[str, list[Trace], bool], object]
"""Writes traces into the file at a path, or anew; called in the order in which the files are to be written."""

Changes = Mapping[str, Any]
"""New values of TraceConfig's fields by name; None takes a change back."""


class _Scope:
    """The requests under one set of settings: how many there were, how many may still be traced, which wait to be
    written.
    """

    def __init__(self, settings: TraceConfig) -> None:
        self.settings = settings
        self.left = settings.count
        self.finished: list[Trace] = []
        self._seen = 0

    @property
    def active(self) -> bool:
        """Whether any request may be traced."""
        return self.settings.is_on and self.left != 0

    def takes(self) -> bool:
        """Whether the next request is traced."""
        self._seen += 1
        if not self.active or self._seen % self.settings.rate:
            return False
        if self.left > 0:
            self.left -= 1
        return True


class Traced:
    """Completes a request and records its end; where a call is followed, the sending of its answer too."""

    def __init__(self, trace: Trace, complete: Complete, finish: Callable[[Trace], None]) -> None:
        self._trace = trace
        self._complete = complete
        self._finish = finish
        self._is_followed = False

    def __call__(self, outcome: Outcome) -> None:
        """What the request is completed with."""
        self._trace.ended, self._trace.outcome = monotonic(), outcome
        if not self._is_followed:
            self._finish(self._trace)
        self._complete(outcome)

    def follow(self) -> None:
        """The trace is finished by `sent` from now on."""
        self._is_followed = True

    def sending(self) -> None:
        """The answer is handed to the transport."""
        self._trace.send_started = monotonic()

    def sent(self, _: object = None) -> None:
        """The call has ended, as far as this server has to do with it; maybe without an answer."""
        self._is_followed = False
        self._trace.send_ended = monotonic()
        if self._trace.outcome is not None:
            self._finish(self._trace)


class Tracer:
    """Takes every n-th request; `active` says whether any may be taken, so that the others cost one look."""

    def __init__(self, config: TraceConfig, write: Write) -> None:
        self._initial = config
        self._write = write
        self._global = _Scope(config)
        self._overrides: dict[str, dict[str, Any]] = {}
        self._scopes: dict[str, _Scope] = {}
        self._numbers = count(1)
        self._files = count()
        self._written: set[str] = set()
        self.active = self._global.active

    def settings(self, model: str = "") -> TraceConfig:
        """What holds for a model, or with "" for those without settings of their own; `count` is what is left."""
        scope = self._scopes.get(model, self._global)
        return replace(scope.settings, count=scope.left)

    def update(self, model: str, changes: Changes) -> None:
        """Changes the settings of a model, or with "" those of all; what was counted is counted anew.

        Taken back, a model's setting is the one of all again, and theirs is that of the server's start. Raises
        ConfigError where the new settings contradict themselves; then nothing is changed.
        """
        if model:
            overrides = _changed(self._overrides.get(model, {}), changes)
            scope = _Scope(replace(self._global.settings, **overrides))
            self._flush(self._scopes.get(model))
            self._overrides[model] = overrides
            self._scopes[model] = scope
            if not overrides:
                del self._overrides[model], self._scopes[model]
        else:
            values = {name: getattr(self._initial, name) if value is None else value for name, value in changes.items()}
            settings = replace(self._global.settings, **values)
            scopes = {name: _Scope(replace(settings, **given)) for name, given in self._overrides.items()}
            self.flush()
            self._global, self._scopes = _Scope(settings), scopes
        self._look()

    def traced(
        self,
        model: tuple[str, str],
        request_id: str,
        inputs: Mapping[str, np.ndarray],
        arrived: float,
        complete: Complete,
    ) -> Complete:
        """`complete`, or where the request is to be traced one that records its end first. `model` has its version."""
        scope = self._scopes.get(model[0], self._global)
        if not scope.takes():
            return complete
        trace = Trace(next(self._numbers), *model, request_id, scope.settings.level, inputs, arrived)
        self._look()
        return Traced(trace, complete, partial(self._finish, scope))

    def flush(self) -> None:
        """Writes what has been recorded and waits for more of its file."""
        for scope in (self._global, *self._scopes.values()):
            self._flush(scope)

    def _finish(self, scope: _Scope, trace: Trace) -> None:
        scope.finished.append(trace)
        is_past = scope not in (self._global, *self._scopes.values())  # settings have changed meanwhile
        if len(scope.finished) >= max(1, scope.settings.log_frequency) or scope.left == 0 or is_past:
            self._flush(scope)

    def _flush(self, scope: _Scope | None) -> None:
        if scope is None or not scope.finished:
            return
        path = scope.settings.file
        if scope.settings.log_frequency:
            path = f"{path}.{next(self._files)}"
        self._write(path, scope.finished, path not in self._written)
        self._written.add(path)
        scope.finished = []

    def _look(self) -> None:
        self.active = any(scope.active for scope in (self._global, *self._scopes.values()))


def _changed(overrides: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    return {name: value for name, value in {**overrides, **changes}.items() if value is not None}
