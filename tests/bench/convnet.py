"""A convolutional network of about 10 ms at 8 concurrent calls, against ONNX Runtime alone at the same setting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from tests.bench import servers
from tests.bench.load import closed_loop, request
from tests.bench.report import Ratio, in_turn, medians
from tests.models import make_models

SETTINGS = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1))
"""Instances and threads of each that ONNX Runtime alone is tried with."""


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The comparison, with the best setting found first and given to the server too."""
    path = make_models.save(make_models.convnet(), folder / "convnet.onnx")
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    best = max(SETTINGS, key=lambda setting: alone(path, image, *setting, seconds=seconds / 2))
    setting = ("--instances", str(best[0]), "--onnxruntime-intra-op-threads", str(best[1]))
    with servers.trtserve(str(path), *setting) as ours:
        data = request("convnet", "image", image)
        pairs = in_turn(
            rounds,
            lambda: closed_loop(ours, data, 8, seconds).rate,
            lambda: alone(path, image, *best, seconds=seconds),
        )
    values = [one / other for one, other in pairs]
    figures = "{:.0f}/s / {:.0f}/s".format(*medians(pairs)) + f" with {best[0]} instances x {best[1]} threads"
    yield Ratio("convnet, 8 concurrent: rate / ONNX Runtime alone", values, 0.95, True, figures)


def alone(path: Path, image: np.ndarray, instances: int, threads: int, *, seconds: float) -> float:
    """Runs per second of ONNX Runtime in this process, without any server."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = [onnxruntime.InferenceSession(str(path), options) for _ in range(instances)]
    counts = [0] * instances
    for session in sessions:
        session.run(None, {"image": image})
    start = time.perf_counter()

    def work(number: int) -> None:
        while time.perf_counter() - start < seconds:
            sessions[number].run(None, {"image": image})
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(instances)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - start)
