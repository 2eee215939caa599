"""The load of the benches: trtserve-load's workers, or gRPC's asyncio client in this process for another view.

Messages are made once and sent again and again. `drive_by` chooses who sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np

from trtserve_protos import oip, tensors, wire


class Load(NamedTuple):
    """Answers per second and the median latency in seconds."""

    rate: float
    p50_s: float


class Driver(Protocol):
    """Who sends."""

    def closed_loop(self, url: str, data: bytes, concurrency: int, seconds: float, *, stream: bool) -> Load:
        """See below."""
        ...


_drivers: list[Driver] = []


def request(model: str, name: str, array: np.ndarray) -> bytes:
    """A request message with one input, in raw form."""
    message = oip.ModelInferRequest(model_name=model)
    message.inputs.add(name=name, datatype="FP32", shape=array.shape)
    return wire.encode_infer_request(message, [tensors.raw_from_array(array)])


def closed_loop(url: str, data: bytes, concurrency: int, seconds: float, *, stream: bool = False) -> Load:
    """Keeps `concurrency` calls, or requests on one stream, in flight for `seconds`, after a short warm-up."""
    return _drivers[-1].closed_loop(url, data, concurrency, seconds, stream=stream)


@contextmanager
def drive_by(driver: Driver) -> Iterator[None]:
    """Every closed loop within is driven by it."""
    _drivers.append(driver)
    try:
        yield
    finally:
        _drivers.pop()
