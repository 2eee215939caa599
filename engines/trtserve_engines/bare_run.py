"""Runs a model's engine without any server, by as many threads as asked, to tell what a server adds.

`python -m trtserve_engines.bare_run MODEL.onnx INPUTS.npz` answers {"backend": ...} when the engine is open; then each
line of standard input is a job {"concurrency", "begins", "measured", "ends", "result"}, times on the monotonic clock:
it writes an array of (end, latency) in seconds to the file `result` and answers {"cpu_s": [at measured, at ends]}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from trtserve_engines.config import OnnxRuntimeOptions
from trtserve_engines.engine import Engine
from trtserve_engines.errors import EngineError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.open_engine import open_engine

Arrays = dict[str, np.ndarray]


def main() -> None:
    """Opens the engine and does the jobs that come."""
    model_path, inputs_path = sys.argv[1:]
    try:
        model = read_onnx_model(Path(model_path))
        engine = open_engine(model, backend="auto", device="auto", onnxruntime=OnnxRuntimeOptions())
        with np.load(inputs_path, allow_pickle=False) as archive:
            inputs = {name: _as_sent(array) for name, array in archive.items()}
        engine.signature.check(inputs)
    except (EngineError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    _answer({"backend": engine.backend})
    for line in sys.stdin:
        job = json.loads(line)
        outcomes, cpu_s = run_job(engine, inputs, job)
        np.save(job["result"], outcomes)
        _answer({"cpu_s": cpu_s})


def run_job(engine: Engine, inputs: Arrays, job: dict[str, Any]) -> tuple[np.ndarray, list[float]]:
    """Runs the engine again and again on every thread until the job's end: (end, latency) in s, and CPU seconds."""
    outcomes: list[tuple[float, float]] = []
    threads = [threading.Thread(target=_loop, args=(engine, inputs, job, outcomes)) for _ in range(job["concurrency"])]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, job["measured"] - time.monotonic()))
    at_measured = _cpu_s()
    for thread in threads:
        thread.join()
    return np.array(outcomes).reshape(-1, 2), [at_measured, _cpu_s()]


def _loop(engine: Engine, inputs: Arrays, job: dict[str, Any], outcomes: list[tuple[float, float]]) -> None:
    context = engine.create_context(batched=False)
    try:
        time.sleep(max(0.0, job["begins"] - time.monotonic()))
        while (start := time.monotonic()) < job["ends"]:
            context.run([inputs])
            end = time.monotonic()
            outcomes.append((end, end - start))
    finally:
        context.close()


def _as_sent(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind == "S" else array


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _answer(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
