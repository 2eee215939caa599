"""A closed loop of unary calls: messages made once, sent again and again, from this process or by trtserve-load.

`drive_by` chooses; without it this process sends.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import grpc.aio
import numpy as np
import uvloop

from tests.bench.harness import Harness
from trtserve_protos import oip, tensors, wire

_harness: list[Harness] = []

INFER = oip.METHODS["ModelInfer"].path


class Load(NamedTuple):
    """Answers per second and the median latency in seconds."""

    rate: float
    p50_s: float


def request(model: str, name: str, array: np.ndarray) -> bytes:
    """A request message with one input, in raw form."""
    message = oip.ModelInferRequest(model_name=model)
    message.inputs.add(name=name, datatype="FP32", shape=array.shape)
    return wire.encode_infer_request(message, [tensors.raw_from_array(array)])


def closed_loop(url: str, data: bytes, concurrency: int, seconds: float) -> Load:
    """Keeps `concurrency` calls in flight for `seconds`, after a short warm-up."""
    if _harness:
        return Load(*_harness[-1].closed_loop(url, data, concurrency, seconds))
    return uvloop.run(_closed_loop(url, data, concurrency, seconds))


@contextmanager
def drive_by(harness: Harness) -> Iterator[None]:
    """Every closed loop within is driven by the harness."""
    _harness.append(harness)
    try:
        yield
    finally:
        _harness.pop()


async def _closed_loop(url: str, data: bytes, concurrency: int, seconds: float) -> Load:
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(url, options=unlimited) as channel:
        call = channel.unary_unary(INFER)
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
