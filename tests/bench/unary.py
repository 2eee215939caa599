"""Unary calls against the baseline servicer: tiny messages, alone and 16 at a time, and 600 kB both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench import servers
from tests.bench.load import closed_loop, request
from tests.bench.report import Ratio, in_turn, medians
from tests.models import make_models


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The three comparisons."""
    make_models.save(make_models.linear(16, 8), folder / "tiny.onnx")
    make_models.save(make_models.scale(2.0, 150_000), folder / "large.onnx")
    tiny = request("tiny", "x", np.ones((1, 16), np.float32))
    large = request("large", "x", np.ones((1, 150_000), np.float32))
    models = [str(folder / "tiny.onnx"), str(folder / "large.onnx")]
    with servers.baseline() as plain, servers.trtserve(*models) as ours:

        def rates(data: bytes, concurrency: int) -> list[tuple[float, float]]:
            return in_turn(
                rounds,
                lambda: closed_loop(ours, data, concurrency, seconds).rate,
                lambda: closed_loop(plain, data, concurrency, seconds).rate,
            )

        yield _rate("tiny, 16 concurrent: rate / baseline", rates(tiny, 16), 0.75)
        pairs = in_turn(
            rounds,
            lambda: closed_loop(ours, tiny, 1, seconds).p50_s * 1e6,
            lambda: closed_loop(plain, tiny, 1, seconds).p50_s * 1e6,
        )
        values = [one / other for one, other in pairs]
        figures = "{:.0f} us / {:.0f} us".format(*medians(pairs))
        yield Ratio("tiny, 1 at a time: p50 / baseline", values, 1.3, False, figures)
        yield _rate("600 kB both ways, 4 concurrent: rate / baseline", rates(large, 4), 0.9)


def _rate(name: str, pairs: list[tuple[float, float]], target: float) -> Ratio:
    figures = "{:.0f}/s / {:.0f}/s".format(*medians(pairs))
    return Ratio(name, [one / other for one, other in pairs], target, True, figures)
