"""Threads chosen per run, against every fixed setting of instances and threads, at several numbers of callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tests.bench import servers
from tests.bench.load import closed_loop, request
from tests.bench.report import Ratio, in_turn, medians
from tests.models import make_models
from tests.models.transformer import transformer

CONCURRENCY = (1, 2, 4, 8, 32)
FIXED = ((1, 1), (1, 2), (2, 1), (2, 2))
"""Instances and threads of each that the choice is held against, on two cores."""

_TRIES = 2

LEAST_S = 2.0
"""A shorter measurement holds too few batches of 32 to tell settings apart."""


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """Both models, at each number of callers."""
    random = np.random.default_rng(0)
    image = random.standard_normal((1, 3, 64, 64)).astype(np.float32)
    tokens = random.standard_normal((1, 64, 256)).astype(np.float32)
    models = {
        "convnet": (make_models.convnet(), request("convnet", "image", image)),
        "transformer": (transformer(), request("transformer", "tokens", tokens)),
    }
    for name, (proto, data) in models.items():
        path = make_models.save(proto, folder / f"{name}.onnx")
        with ExitStack() as stack:
            adaptive = stack.enter_context(servers.trtserve(str(path)))
            fixed = {
                setting: stack.enter_context(
                    servers.trtserve(
                        str(path), "--instances", str(setting[0]), "--onnxruntime-intra-op-threads", str(setting[1])
                    )
                )
                for setting in FIXED
            }
            for concurrency in CONCURRENCY:
                yield _compare(name, adaptive, fixed, data, concurrency, rounds, max(seconds, LEAST_S))


def _compare(
    name: str,
    adaptive: str,
    fixed: dict[tuple[int, int], str],
    data: bytes,
    concurrency: int,
    rounds: int,
    seconds: float,
) -> Ratio:
    # The best is found first: the best of several that are measured beside ours would be the luckiest too.
    found = {
        setting: max(closed_loop(url, data, concurrency, seconds).rate for _ in range(_TRIES))
        for setting, url in fixed.items()
    }
    best = max(fixed, key=found.__getitem__)
    pairs = in_turn(
        rounds,
        lambda: closed_loop(adaptive, data, concurrency, seconds).rate,
        lambda: closed_loop(fixed[best], data, concurrency, seconds).rate,
    )
    ours, others = medians(pairs)
    tried = ", ".join(f"{instances}x{threads} {found[instances, threads]:.0f}" for instances, threads in fixed)
    return Ratio(
        f"{name}, {concurrency} callers: rate / best fixed setting",
        [one / other for one, other in pairs],
        0.97,
        True,
        f"{ours:.0f}/s / {others:.0f}/s; fixed, instances x threads: {tried}",
    )
