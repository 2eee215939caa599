"""A loaded model with its batcher and instances: admits requests, and says what it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trtserve_engines.engine import ExecutionContext
from trtserve_engines.errors import SignatureError
from trtserve_engines.signature import DYNAMIC, Signature
from trtserve_protos import dtypes
from trtserve_server.config import ModelConfig
from trtserve_server.errors import InvalidRequest, RequestError
from trtserve_server.models.loader import LoadedModel, warm_up
from trtserve_server.request import InferRequest
from trtserve_server.scheduling.batcher import Batcher
from trtserve_server.scheduling.instance import Instance
from trtserve_server.scheduling.policy import BatchPolicy
from trtserve_server.scheduling.reactor import Reactor
from trtserve_server.statistics import ModelStatistics

log = logging.getLogger(__name__)

Ready = Callable[[Exception | None], None]


class ServedModel:
    """One version of one model. All methods belong to the scheduling thread, but `close`."""

    def __init__(self, loaded: LoadedModel, reactor: Reactor) -> None:
        self._loaded = loaded
        self._engine = loaded.engine
        self.name = loaded.source.name
        self.version = loaded.source.version
        self.signature: Signature = loaded.engine.signature
        self.statistics = ModelStatistics()
        self._reactor = reactor
        self._max_rows = loaded.max_batch_size or 1
        # Where only the rows can differ, all requests can share a batch, and there is no key to be made per request.
        self._one_key = all(DYNAMIC not in spec.shape[1:] for spec in self.signature.inputs)
        batching = self.config.batching
        policy = BatchPolicy(self._max_rows, batching.max_queue_delay_us / 1e6, batching.preferred_batch_sizes)
        self.batcher = Batcher(
            self.name, policy, reactor, self.statistics, max_queue_size=batching.max_queue_size
        )
        self._instances: list[Instance] = []
        self._starting = 0

    @property
    def config(self) -> ModelConfig:
        """The configuration that the model was loaded with."""
        return self._loaded.source.config

    @property
    def backend(self) -> str:
        """The runtime that executes the model."""
        return self._engine.backend

    @property
    def device(self) -> str:
        """Where it executes."""
        return self._engine.device

    @property
    def max_batch_size(self) -> int:
        """The most rows in a batch; 0 where requests are never batched."""
        return self._loaded.max_batch_size

    @property
    def batching_reason(self) -> str:
        """Why the model is batched, or is not."""
        return self._loaded.batching_reason

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Labels of the classes, by output."""
        return self._loaded.labels

    @property
    def instances(self) -> int:
        """How many batches may run at the same time."""
        return self._loaded.instances

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self.batcher.waiting

    @property
    def load_s(self) -> float:
        """Seconds that loading took, without warm-up."""
        return self._loaded.load_s

    def start(self, on_ready: Ready) -> None:
        """Starts the instances; `on_ready` gets None once all are warm, or the first failure."""
        self._starting = self._loaded.instances
        self._on_ready = on_ready
        for number in range(self._loaded.instances):
            instance = Instance(
                f"{self.name}/{self.version}#{number}",
                self._engine,
                self._reactor,
                batched=self.max_batch_size > 0,
                warmup=self._warm_up,
                on_started=self._instance_started,
                on_finished=self.batcher.batch_finished,
            )
            self._instances.append(instance)
            instance.start()

    def submit(self, request: InferRequest) -> None:
        """Admits a request to the queue. Raises InvalidRequest where it does not fit the model."""
        try:
            self.signature.check(request.inputs, _wire_name)
        except SignatureError as error:
            raise InvalidRequest(f"model {self.name!r}: {error}") from None
        if self.max_batch_size:
            request.rows = self._rows(request.inputs)
            if not self._one_key:
                request.batch_key = tuple(array.shape[1:] for array in request.inputs.values())
        self.batcher.submit((request,))

    def cancel(self, request: InferRequest) -> None:
        """Gives up a request whose caller is gone."""
        self.batcher.cancel(request)

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Takes nothing new; calls `on_drained` when all that was accepted is answered."""
        self.batcher.drain(on_drained)

    def abort(self, error: RequestError) -> None:
        """Fails everything that waits."""
        self.batcher.abort(error)

    def stop(self) -> None:
        """Ends the instances after what they run now."""
        for instance in self._instances:
            instance.stop()

    def close(self, timeout_s: float) -> bool:
        """Waits for the instances' end and frees the engine; False where one still runs. From any thread, blocking."""
        ended = [instance.join(timeout_s) for instance in self._instances]
        if all(ended):
            self._engine.close()
        return all(ended)

    def _rows(self, inputs: Mapping[str, np.ndarray]) -> int:
        counts = {name: len(array) for name, array in inputs.items()}
        rows = next(iter(counts.values()))
        if any(count != rows for count in counts.values()):
            raise InvalidRequest(f"model {self.name!r}: inputs differ in their number of rows: {counts}; make them equal")
        if not 0 < rows <= self.max_batch_size:
            raise InvalidRequest(
                f"model {self.name!r}: a batch of {rows} rows given, 1 to {self.max_batch_size} wanted;"
                " send fewer rows per request or raise max_batch_size"
            )
        return rows

    def _warm_up(self, context: ExecutionContext) -> None:
        warm_up(context, self.signature, max_batch_size=self.max_batch_size, runs=self.config.warmup_runs)

    def _instance_started(self, instance: Instance, error: Exception | None) -> None:
        self._starting -= 1
        if error is None:
            self.batcher.instance_idle(instance)
        if (error or self._starting == 0) and self._on_ready:
            on_ready, self._on_ready = self._on_ready, None
            on_ready(error)

    _on_ready: Ready | None = None


def _wire_name(dtype: np.dtype) -> str:
    return dtypes.from_numpy(dtype).name
