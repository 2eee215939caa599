"""gRPC's asyncio client in this process as the load: one that takes as much CPU as the server that it calls."""

from __future__ import annotations

import asyncio
import statistics
import time

import grpc.aio
import uvloop

from tests.bench.load import Load
from trtserve_protos import oip

_INFER = oip.METHODS["ModelInfer"].path
_STREAM = oip.METHODS["ModelStreamInfer"].path
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class GrpcClient:
    """See load.Driver. On a stream the median latency is in flight by rate, by Little's law."""

    def closed_loop(self, url: str, data: bytes, concurrency: int, seconds: float, *, stream: bool) -> Load:
        """See load.closed_loop."""
        loop = _stream_loop if stream else _unary_loop
        return uvloop.run(loop(url, data, concurrency, seconds))


async def _unary_loop(url: str, data: bytes, concurrency: int, seconds: float) -> Load:
    async with grpc.aio.insecure_channel(url, options=_UNLIMITED) as channel:
        call = channel.unary_unary(_INFER)
        await call(data, wait_for_ready=True)
        await _drive(call, data, concurrency, seconds / 5)
        start = time.perf_counter()
        latencies = await _drive(call, data, concurrency, seconds)
        return Load(len(latencies) / (time.perf_counter() - start), statistics.median(latencies))


async def _drive(call: grpc.aio.UnaryUnaryMultiCallable, data: bytes, concurrency: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def worker() -> None:
        while (start := time.perf_counter()) < end:
            await call(data)
            latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return latencies


async def _stream_loop(url: str, data: bytes, in_flight: int, seconds: float) -> Load:
    places = asyncio.Semaphore(in_flight)
    async with grpc.aio.insecure_channel(url, options=_UNLIMITED) as channel:
        call = channel.stream_stream(_STREAM)(wait_for_ready=True)

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
        return Load(rate, in_flight / rate)
