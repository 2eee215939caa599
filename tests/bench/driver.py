"""What trtserve-load drives against what Triton's perf_analyzer drives: the same server, the same model, in turn.

Yields nothing, and says why, where perf_analyzer cannot be had: it is a program for Linux on x86-64.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.bench import servers
from tests.bench.report import Ratio, in_turn, medians
from tests.models import make_models
from tests.support.environments import RegistryUnreachable
from tests.support.perf_analyzer import NotRunnable, Program, find_perf_analyzer
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.lanes import ServerLane
from trtserve_client.load.loads import closed, loads_of

TARGET = 0.9
_WINDOWS = 3
"""perf_analyzer measures at least this many windows."""


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """Unary calls, 16 and 1 at once, and 16 in flight on a stream."""
    try:
        program = find_perf_analyzer()
    except (RegistryUnreachable, NotRunnable) as error:
        print(f"trtserve-load / perf_analyzer: not measured, because it cannot be had: {error}")
        return
    make_models.save(make_models.linear(16, 8), folder / "tiny.onnx")
    with servers.trtserve(str(folder / "tiny.onnx")) as url:
        for concurrency, streams in ((16, 0), (1, 0), (16, 1)):
            config = LoadConfig(
                model="tiny", url=url, streams=streams, in_flight=(concurrency,) * streams, duration_s=seconds
            )
            name = f"{concurrency} {'in flight on a stream' if streams else 'concurrent'}"
            with ServerLane("", config) as lane:
                load = loads_of(config)[0] if streams else closed(concurrency)
                pairs = in_turn(
                    rounds,
                    lambda lane=lane, load=load: (
                        lane.measure(load, threading.Event(), lambda collector: None).throughput
                    ),
                    lambda concurrency=concurrency, streams=streams: _theirs(
                        program, url, concurrency, streams, seconds
                    ),
                )
            figures = "{:.0f}/s / {:.0f}/s".format(*medians(pairs))
            yield Ratio(f"{name}: driven / by perf_analyzer", [a / b for a, b in pairs], TARGET, True, figures)


_STREAM = ("--async", "--streaming", "--max-threads", "1")
"""One stream: with more threads perf_analyzer opens one for each."""


def _theirs(program: Program, url: str, concurrency: int, streams: int, seconds: float) -> float:
    window_ms = str(max(300, round(1000 * seconds / _WINDOWS)))
    report = program.run(
        *("-m", "tiny", "-u", url, "-i", "grpc", "--concurrency-range", str(concurrency), "-p", window_ms),
        # As stable as it comes: the machine is the same for both.
        *("--max-trials", "10", "-s", "99", *_STREAM * streams),
    )
    found = re.search(r"^Concurrency: .*throughput: ([\d.]+)", report, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"perf_analyzer reported no throughput:\n{report}")
    return float(found[1])
