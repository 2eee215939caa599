"""Traced requests as records, and the writing of them to files: JSON arrays, whole after each write.

Format and names are Triton's, so that its tools read the files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from trtserve_protos import dtypes
from trtserve_server.config import TENSORS, TIMESTAMPS
from trtserve_server.errors import RequestCancelled
from trtserve_server.request import InferResponse, Outcome

log = logging.getLogger(__name__)

Record = dict[str, Any]

MAX_WAITING = 10_000
"""Traces that may wait for the thread that writes them."""

_NS = 1e9
_END = b"\n]\n"


@dataclass(slots=True)
class Trace:
    """One traced request. Times are in seconds of the monotonic clock; `outcome` comes with its end.

    `send_started` is 0 where the sending of the answer was not followed.
    """

    number: int
    model: str
    version: str
    request_id: str
    levels: tuple[str, ...]
    inputs: Mapping[str, np.ndarray]
    arrived: float
    ended: float = 0.0
    outcome: Outcome | None = None
    send_started: float = 0.0
    send_ended: float = 0.0

    def records(self) -> Iterator[Record]:
        """What the file holds of the request."""
        head = {"id": self.number, "model_name": self.model, "model_version": int(self.version)}
        yield {**head, "request_id": self.request_id} if self.request_id else head
        if TIMESTAMPS in self.levels:
            for name, seconds in self._timestamps():
                yield {"id": self.number, "timestamps": [{"name": name, "ns": round(seconds * _NS)}]}
        if TENSORS in self.levels:
            yield from self._tensors("TENSOR_QUEUE_INPUT", self.inputs)
            if isinstance(self.outcome, InferResponse):
                yield from self._tensors("TENSOR_BACKEND_OUTPUT", self.outcome.outputs)

    def _timestamps(self) -> Iterator[tuple[str, float]]:
        yield "GRPC_WAITREAD_END", self.arrived
        yield "REQUEST_START", self.arrived
        yield "QUEUE_START", self.arrived
        if isinstance(self.outcome, InferResponse):
            timing = self.outcome.timing
            gathered = timing.started + timing.input_ns / _NS
            computed = gathered + timing.compute_ns / _NS
            yield "COMPUTE_START", timing.started
            yield "COMPUTE_INPUT_END", gathered
            yield "COMPUTE_OUTPUT_START", computed
            yield "COMPUTE_END", computed + timing.output_ns / _NS
        if not isinstance(self.outcome, RequestCancelled):
            yield "INFER_RESPONSE_COMPLETE", self.ended  # the answer or the error is the transport's from here on
        yield "REQUEST_END", self.ended
        if self.send_started:
            yield "GRPC_SEND_START", self.send_started
            yield "GRPC_SEND_END", self.send_ended

    def _tensors(self, activity: str, arrays: Mapping[str, np.ndarray]) -> Iterator[Record]:
        for name, array in arrays.items():
            tensor = {
                "name": name,
                "data": ",".join(map(_text, array.flat)),
                "shape": ",".join(map(str, array.shape)),
                "dtype": dtypes.from_numpy(array.dtype).name,
            }
            yield {"id": self.number, "activity": activity, "tensor": tensor}


class TraceWriter:
    """Writes in `executor`, which has one thread. Where that cannot keep up, traces are lost rather than kept."""

    def __init__(self, executor: Executor, max_waiting: int = MAX_WAITING) -> None:
        self._executor = executor
        self._max_waiting = max_waiting
        self._waiting = 0  # traces that are not written yet; changed under the lock
        self._lock = Lock()

    def write(self, path: str, traces: Sequence[Trace], anew: bool) -> None:
        """Has traces added to the file at `path`, or the file made `anew`. Returns at once."""
        with self._lock:
            if self._waiting and self._waiting + len(traces) > self._max_waiting:
                log.warning("%d traces are lost: %d others still wait to be written", len(traces), self._waiting)
                return
            self._waiting += len(traces)
        self._executor.submit(self._write, path, traces, anew)

    def close(self) -> None:
        """Waits until everything is written."""
        self._executor.shutdown()

    def _write(self, path: str, traces: Sequence[Trace], anew: bool) -> None:
        try:
            write_traces(path, traces, anew=anew)
        finally:
            with self._lock:
                self._waiting -= len(traces)


def write_traces(path: str, traces: Sequence[Trace], *, anew: bool) -> None:
    """Adds traces to the file at `path`, or makes it `anew`. What cannot be written is lost and logged."""
    lines = [json.dumps(record).encode() for trace in traces for record in trace.records()]
    try:
        if anew or not Path(path).exists():
            Path(path).write_bytes(b"[\n" + b",\n".join(lines) + _END)
            return
        with open(path, "r+b") as file:
            file.seek(-len(_END), 2)
            file.write(b",\n" + b",\n".join(lines) + _END)
    except OSError as error:
        log.error("%d traces are lost: trace file %s cannot be written: %s", len(traces), path, error.strerror)


def _text(element: object) -> str:
    return element.decode(errors="backslashreplace") if isinstance(element, bytes) else str(element)
