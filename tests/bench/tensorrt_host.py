"""Host cost of a batch in the TensorRT runtime: Python and driver calls, on the stand-in libcuda, without device time.

TensorRT's own enqueue is taken out (its simulation costs more than the real one), and the stand-in copies at once on
the caller's thread, so what is left is what the runtime itself costs. Run as a module, it is the measured process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.report import Ratio

ROOT = Path(__file__).resolve().parents[2]
TARGET_US = 120.0
PARTS = 8
BATCHES = 300


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The cost of a batch of 8 requests, less the copies of its bytes, as a ratio to the target of 120 us."""
    from tests.simulation.environment import SimulationUnavailable, simulation_environment

    try:
        simulation = simulation_environment()
    except SimulationUnavailable as error:
        print(f"tensorrt_host is skipped: {error}")
        return
    for cuda_driver in ("cuda-bindings", "pycuda"):
        command = [sys.executable, "-m", "tests.bench.tensorrt_host", cuda_driver, str(folder), str(rounds)]
        result = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **simulation, "FAKE_CUDA_ASYNC": "0"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        measured = json.loads(result.stdout.splitlines()[-1])
        costs = [batch - copies for batch, copies in measured]
        batch, copies = (statistics.median(column) for column in zip(*measured, strict=True))
        figures = f"{batch:.0f} us a batch, of which copies {copies:.0f} us; target {TARGET_US:.0f} us without them"
        yield Ratio(
            f"TensorRT host cost, batch of {PARTS}, {cuda_driver}",
            [cost / TARGET_US for cost in costs],
            1.0,
            False,
            figures,
        )


def _measure(cuda_driver: str, folder: Path, rounds: int) -> list[tuple[float, float]]:
    """Of each round the microseconds of a batch, and of the copies that any runtime has to make for it."""
    import numpy as np

    from tests.models import make_models as models
    from tests.support.tensorrt_engines import build
    from trtserve_engines.cuda.open_driver import open_driver
    from trtserve_engines.tensorrt.build_config import BuildConfig
    from trtserve_engines.tensorrt.runtime import TensorRtEngine

    driver = open_driver(cuda_driver)
    path = models.save(models.linear(1024, 64), folder / "bench.onnx")
    plan = build(path, driver, BuildConfig(profiles=("x=1x1024:8x1024:8x1024",)))
    engine = TensorRtEngine.load(plan, driver=driver)
    context = engine.create_context(batched=True)
    parts = [{"x": np.ones((1, 1024), np.float32)} for _ in range(PARTS)]
    staging, output = np.zeros((PARTS, 1024), np.float32), np.zeros((PARTS, 64), np.float32)

    def copies() -> None:
        for row, part in enumerate(parts):
            staging[row : row + 1] = part["x"]
        output.copy()

    for pending in [context.launch(parts) for _ in range(context.depth)]:
        context.collect(pending)
        pending.route.context = _Nothing()
        if pending.route.graph is not None:
            pending.route.graph = _Nothing()
    measured = [(_microseconds(lambda: context.run(parts)), _microseconds(copies)) for _ in range(rounds)]
    context.close()
    engine.close()
    return measured


class _Nothing:
    """A context, or a graph, that enqueues nothing."""

    def set_shapes(self, shapes: object) -> None:
        pass

    def enqueue(self, stream: object) -> None:
        pass

    def launch(self, stream: object) -> None:
        pass


def _microseconds(call: Callable[[], object]) -> float:
    """The median of many calls, which is what a call costs when nothing disturbs it."""
    times = []
    for _ in range(BATCHES):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
