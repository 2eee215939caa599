"""One bidirectional stream with 16 requests in flight against 16 concurrent unary calls: to the same server, and to
the plain servicer, whose rate does not grow when ours does. The first stands beside what the transport does at best,
answering with bytes that were made once: what its ratio would be if our own work on a request took no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tests.bench import servers
from tests.bench.load import closed_loop, request
from tests.bench.report import Ratio, in_turn, medians
from tests.models import make_models

IN_FLIGHT = 16


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The comparison, with a tiny model."""
    make_models.save(make_models.linear(16, 8), folder / "tiny.onnx")
    tiny = request("tiny", "x", np.ones((1, 16), np.float32))
    with servers.trtserve(str(folder / "tiny.onnx")) as url, servers.baseline() as plain, servers.echo() as echo:

        def stream(url: str) -> float:
            return closed_loop(url, tiny, IN_FLIGHT, seconds, stream=True).rate

        def unary(url: str) -> float:
            return closed_loop(url, tiny, IN_FLIGHT, seconds).rate

        bare, bare_unary = medians(in_turn(rounds, partial(stream, echo), partial(unary, echo)))
        by_itself = f"; the transport at best {bare:.0f}/s / {bare_unary:.0f}/s = {bare / bare_unary:.2f}"
        for what, to, more in (("16 unary", url, by_itself), ("16 unary to the baseline", plain, "")):
            pairs = in_turn(rounds, partial(stream, url), partial(unary, to))
            figures = "{:.0f}/s / {:.0f}/s".format(*medians(pairs)) + more
            name = f"tiny, stream with 16 in flight: rate / {what}"
            yield Ratio(name, [one / other for one, other in pairs], 2.0, True, figures)
