"""Answers to requests that may be asked again: bounded in bytes, the least recently used go first.

One cache for the server, one view of it per model. What is asked is known by a digest of everything that the answer
depends on. Belongs to the scheduling thread.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np

from trtserve_protos.tensors import raw_from_array
from trtserve_server.request import BatchTiming, Complete, InferRequest, InferResponse, Outcome
from trtserve_server.scheduling.batch import resolve
from trtserve_server.statistics import ModelStatistics

Outputs = Mapping[str, np.ndarray]
Key = tuple[int, bytes]
"""Which model, and the digest of the question."""

ENTRY_BYTES = 512
"""What an entry takes beside its tensors, and each string beside its bytes a tenth of it: about what Python needs."""

_models = count()


class _Entry(NamedTuple):
    outputs: Outputs
    size: int


class ResponseCache:
    """Holds outputs of at most `max_bytes`, what it takes to hold them included."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Outputs | None:
        """The outputs, read-only, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.outputs

    def put(self, key: Key, outputs: Outputs) -> None:
        """Keeps copies of the outputs: they may be rows of a larger batch. Drops old entries for room.

        Outputs that are larger than the whole cache are not kept.
        """
        size = ENTRY_BYTES + sum(map(_size_of, outputs.values()))
        if size > self._max_bytes:
            return
        self._drop(key)
        while self.size + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        copies = {name: array.copy() for name, array in outputs.items()}
        for array in copies.values():
            array.setflags(write=False)
        self._entries[key] = _Entry(copies, size)
        self.size += size

    def forget(self, model: int) -> None:
        """Drops every entry of a model."""
        for key in [key for key in self._entries if key[0] == model]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        if entry := self._entries.pop(key, None):
            self.size -= entry.size


class ModelCache:
    """The cache as one loaded model sees it: a model that is loaded again, changed or not, starts afresh.

    `epoch` gives a number that changes when answers of the model may change without its being loaded again.
    """

    def __init__(
        self, cache: ResponseCache, statistics: ModelStatistics, *, epoch: Callable[[], int] = lambda: 0
    ) -> None:
        self._cache = cache
        self._statistics = statistics
        self._epoch = epoch
        self._model = next(_models)

    def answer(self, request: InferRequest, now: float) -> bool:
        """Completes the request where its answer is known; else sees to it that its answer will be."""
        if request.cached_outputs is None:
            return False
        start = perf_counter_ns()
        # What is digested must be what is run, whatever a client does meanwhile to memory that it shares.
        request.inputs = {name: np.asarray(array) for name, array in request.inputs.items()}
        key = self._model, digest(request.inputs, request.cached_outputs, self._epoch())
        outputs = self._cache.get(key)
        looked_up_ns = perf_counter_ns() - start
        if outputs is None:
            request.complete = partial(self._store, key, request.cached_outputs, request.complete, looked_up_ns)
            return False
        timing = BatchTiming("cache", request.rows, now, now, now, now, 0, 0, 0)
        if resolve(request, InferResponse(outputs, request.arrived, timing)):
            self._statistics.record_cache_hit(now - request.arrived, looked_up_ns)
        return True

    def close(self) -> None:
        """Drops the model's entries."""
        self._cache.forget(self._model)

    def _store(self, key: Key, wanted: Sequence[str], complete: Complete, looked_up_ns: int, outcome: Outcome) -> None:
        if isinstance(outcome, InferResponse):
            start = perf_counter_ns()
            outputs = outcome.outputs
            self._cache.put(key, {name: outputs[name] for name in wanted} if wanted else outputs)
            self._statistics.record_cache_miss(looked_up_ns + perf_counter_ns() - start)
        complete(outcome)


def digest(inputs: Outputs, outputs: Sequence[str], epoch: int) -> bytes:
    """A digest of inputs, by name, type, shape and bytes, and of the names of the outputs that are asked for.

    No order matters. Collisions cannot be made on purpose: a client must not be able to answer for another.
    """
    state = hashlib.sha256(repr((epoch, sorted(outputs), len(inputs))).encode())
    for name, array in sorted(inputs.items()):
        raw = raw_from_array(array)
        state.update(repr((name, array.dtype.str, array.shape, len(raw))).encode())
        state.update(raw)
    return state.digest()


def _size_of(array: np.ndarray) -> int:
    if array.dtype.kind != "O":
        return array.nbytes
    return array.nbytes + sum(len(element) + ENTRY_BYTES // 10 for element in array.flat)
