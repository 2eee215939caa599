"""Draws scheduling.svg: what the real scheduler did with a handful of requests, on a simulated clock.

From the project's folder: `.venv/bin/python -m docs.draw_timeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.bench.simulation import SimulatedReactor
from trtserve_engines.engine import BatchResult
from trtserve_server.request import InferRequest, InferResponse, Outcome
from trtserve_server.scheduling.batch import Batch
from trtserve_server.scheduling.batcher import Batcher, BatcherOptions
from trtserve_server.scheduling.device import Device
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.policy import BatchPolicy
from trtserve_server.scheduling.queue_policy import QueuePolicy
from trtserve_server.statistics import ModelStatistics

RUN_MS = 40.0
INF = float("inf")


class Caller(NamedTuple):
    """One request: when it comes, how long its caller waits for the answer, and when he leaves, all in ms."""

    name: str
    arrives: float
    patience: float = INF
    leaves: float = INF
    priority: int = 2


CALLERS = (
    Caller("A", 0),
    Caller("B", 5),
    Caller("C", 10),
    Caller("D", 12),
    Caller("E", 14, leaves=32),
    Caller("F", 16),
    Caller("G", 18),
    Caller("H", 24, priority=1),
    Caller("I", 28, patience=30),
    Caller("J", 52),
    Caller("K", 58, patience=110),
    Caller("L", 64),
)


class Drawn(NamedTuple):
    """What became of a request: when its run began and ended, or when it was over without one."""

    start: float
    end: float
    end_word: str


class ShownInstance:
    """Runs each batch in RUN_MS of the simulated clock."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.name = f"instance {number + 1}"
        self.device: Device = stage.device
        self.idle_since = 0.0
        self.capacity = 1
        self._stage = stage

    def run(self, batch: Batch) -> None:
        """See Instance."""
        stage, start = self._stage, self._stage.reactor.time
        end = start + RUN_MS / 1e3
        stage.batches.append((self.name, start * 1e3, end * 1e3, [stage.names[request] for request in batch.requests]))
        result = BatchResult({"y": np.zeros((batch.rows, 1))}, 0, 0, 0)
        stage.reactor.after(end, partial(stage.batcher.batch_finished, self, batch, result, start, end))


class Stage:
    """A batcher with two instances, and what it did."""

    def __init__(self) -> None:
        self.reactor = SimulatedReactor()
        host = Host(self.reactor)
        self.device = host.device("gpu:0")
        options = BatcherOptions(BatchPolicy(4), QueuePolicy(100, 1 << 30, levels=2, default_level=2))
        self.batcher = Batcher("shown", options, self.reactor, ModelStatistics(), host.budget)
        self.batches: list[tuple[str, float, float, list[str]]] = []
        self.names: dict[InferRequest, str] = {}
        self.fates: dict[str, Drawn] = {}
        for number in (1, 0):
            self.batcher.instance_idle(ShownInstance(self, number))
        self._teach()
        for caller in CALLERS:
            self.reactor.after(caller.arrives / 1e3, partial(self._send, caller))
        while self.reactor.step():
            pass

    def _teach(self) -> None:
        """One run before the picture begins, so that it is known how long a run takes."""
        warm = InferRequest({}, lambda outcome: None, arrived=-0.1)
        self.names[warm] = "warm-up"
        self.reactor.time = -0.1
        self.reactor.after(-0.1, lambda: self.batcher.submit([warm]))
        while self.reactor.step():
            pass
        self.batches.clear()

    def _send(self, caller: Caller) -> None:
        now = self.reactor.time
        request = InferRequest(
            {}, partial(self._over, caller), arrived=now, deadline=now + caller.patience / 1e3, priority=caller.priority
        )
        self.names[request] = caller.name
        self.batcher.submit([request])
        if caller.leaves != INF:
            self.reactor.after(caller.leaves / 1e3, partial(self.batcher.cancel, request))

    def _over(self, caller: Caller, outcome: Outcome) -> None:
        if isinstance(outcome, InferResponse):
            times = outcome.timing.started * 1e3, outcome.timing.ended * 1e3
            self.fates[caller.name] = Drawn(*times, "")
        else:
            now = self.reactor.time * 1e3
            word = {"DeadlineExceeded": "refused at once", "RequestCancelled": "caller left"}[type(outcome).__name__]
            self.fates[caller.name] = Drawn(now, now, word)


LEFT, TOP, ROW, WIDTH = 96, 36, 24, 900


def _x(ms: float) -> float:
    return LEFT + ms * 6


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{words}</text>'


def _bar(start: float, end: float, y: float, kind: str, height: int = 14) -> str:
    return (
        f'<rect x="{_x(start):.1f}" y="{y:.0f}" width="{max(2.0, _x(end) - _x(start)):.1f}" height="{height}"'
        f' rx="3" class="{kind}"/>'
    )


def picture(stage: Stage) -> str:
    """The timeline as SVG, readable on a light and on a dark page."""
    parts = [_text(LEFT, 20, "each request from its arrival: waiting, then running; below, what each instance ran")]
    for row, caller in enumerate(CALLERS):
        y = TOP + row * ROW
        fate = stage.fates[caller.name]
        note = ", urgent" if caller.priority == 1 else ""
        if caller.patience != INF:
            note += f", {caller.patience:.0f} ms"
        parts.append(_text(8, y + 12, f"{caller.name}{note}"))
        parts.append(_bar(caller.arrives, fate.start, y, "wait"))
        if fate.end_word:
            parts.append(_text(_x(fate.end) + 8, y + 12, fate.end_word, "bad"))
        else:
            parts.append(_bar(fate.start, fate.end, y, "run"))
    bottom = TOP + len(CALLERS) * ROW + 12
    names = sorted({name for name, *_ in stage.batches})
    for name, start, end, members in stage.batches:
        y = bottom + names.index(name) * 32
        parts.append(_bar(start, end, y, "run", 24))
        parts.append(_text(_x(start) + 8, y + 17, " ".join(members), "on"))
    for row, name in enumerate(names):
        parts.append(_text(8, bottom + row * 32 + 17, name))
    axis = bottom + len(names) * 32 + 8
    parts += _axis(axis)
    return _page(parts, axis + 34)


def _axis(y: float) -> Sequence[str]:
    ticks = range(0, 131, 20)
    lines = [f'<line x1="{_x(0):.0f}" y1="{y}" x2="{_x(130):.0f}" y2="{y}" class="axis"/>']
    lines += [f'<line x1="{_x(t):.0f}" y1="{TOP}" x2="{_x(t):.0f}" y2="{y}" class="grid"/>' for t in ticks]
    return [*lines, *(_text(_x(t) - 8, y + 18, f"{t}" if t else "0 ms") for t in ticks)]


def _page(parts: Sequence[str], height: float) -> str:
    style = (
        "text{font:13px system-ui,sans-serif;fill:#24292f}.bad{fill:#b3261e}.on{fill:#fff}"
        ".wait{fill:#c5cbd3}.run{fill:#2563a8}.axis{stroke:#57606a}.grid{stroke:#8c959f;stroke-opacity:.25}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bad{fill:#ff8a80}.on{fill:#fff}.wait{fill:#4b535d}"
        ".run{fill:#3b82c4}.axis{stroke:#9da7b3}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        f' aria-label="Timeline of twelve requests on two instances"><style>{style}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    (Path(__file__).parent / "scheduling.svg").write_text(picture(Stage()))
