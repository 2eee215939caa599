"""A closed loop of unary calls from this process: messages made once, sent again and again."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import NamedTuple

import grpc.aio
import numpy as np
import uvloop

from trtserve_protos import oip, tensors, wire

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
    return uvloop.run(_closed_loop(url, data, concurrency, seconds))


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
