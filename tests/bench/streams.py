"""One bidirectional stream with 16 requests in flight, against 16 concurrent unary calls to the same server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import numpy as np
import uvloop

from tests.bench import servers
from tests.bench.load import closed_loop, request
from tests.bench.report import Ratio, in_turn, medians
from tests.models import make_models
from trtserve_protos import oip

STREAM = oip.METHODS["ModelStreamInfer"].path
IN_FLIGHT = 16


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The comparison, with a tiny model."""
    make_models.save(make_models.linear(16, 8), folder / "tiny.onnx")
    tiny = request("tiny", "x", np.ones((1, 16), np.float32))
    with servers.trtserve(str(folder / "tiny.onnx")) as url:
        pairs = in_turn(
            rounds,
            lambda: stream_rate(url, tiny, IN_FLIGHT, seconds),
            lambda: closed_loop(url, tiny, IN_FLIGHT, seconds).rate,
        )
    values = [one / other for one, other in pairs]
    figures = "{:.0f}/s / {:.0f}/s".format(*medians(pairs))
    yield Ratio("tiny, stream with 16 in flight: rate / 16 unary", values, 2.0, True, figures)


def stream_rate(url: str, data: bytes, in_flight: int, seconds: float) -> float:
    """Answers per second on one stream, after a short warm-up."""
    return uvloop.run(_stream_rate(url, data, in_flight, seconds))


async def _stream_rate(url: str, data: bytes, in_flight: int, seconds: float) -> float:
    places = asyncio.Semaphore(in_flight)
    async with grpc.aio.insecure_channel(url) as channel:
        call = channel.stream_stream(STREAM)(wait_for_ready=True)

        async def send() -> None:
            while await places.acquire():
                await call.write(data)

        async def count(seconds: float) -> float:
            answers, start = 0, time.perf_counter()
            while time.perf_counter() < start + seconds:
                if not await call.read():
                    raise RuntimeError("the server ended the stream")
                places.release()
                answers += 1
            return answers / (time.perf_counter() - start)

        sender = asyncio.ensure_future(send())
        await count(seconds / 5)
        rate = await count(seconds)
        sender.cancel()
        call.cancel()
        return rate
