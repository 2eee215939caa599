"""A loaded model with its batcher and instances: admits requests, and says what it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trtserve_engines.signature import DYNAMIC, Signature
from trtserve_server.config import BatchConfig, LevelConfig, ModelConfig
from trtserve_server.errors import RequestError
from trtserve_server.models.effective import EffectiveConfig, effective_config
from trtserve_server.models.input_checks import batch_rows, check_inputs, request_rows
from trtserve_server.models.instance_group import InstanceGroup, Ready
from trtserve_server.models.loader import LoadedModel
from trtserve_server.models.response_cache import ModelCache, ResponseCache
from trtserve_server.request import BatchKey, InferRequest
from trtserve_server.scheduling.batcher import Batcher, BatcherOptions
from trtserve_server.scheduling.host import Host
from trtserve_server.scheduling.policy import BatchPolicy
from trtserve_server.scheduling.queue_policy import LevelPolicy, QueuePolicy
from trtserve_server.statistics import ModelStatistics


class ServedModel:
    """One version of one model. All methods belong to the scheduling thread, but `close`."""

    parts: Sequence[str] = ()
    """The names of the models that this one is composed of: it is a single one."""
    depth = 0

    def __init__(self, loaded: LoadedModel, host: Host, cache: ResponseCache | None = None) -> None:
        self._loaded = loaded
        self._engine = loaded.engine
        self.name = loaded.source.name
        self.version = loaded.source.version
        self.signature: Signature = loaded.signature
        self.statistics = ModelStatistics()
        self._now = host.reactor.now
        self._cache: ModelCache | None = None
        if cache is not None and self.config.response_cache:
            self._cache = ModelCache(cache, self.statistics)
        self._one_key = all(DYNAMIC not in spec.shape[1:] for spec in self.signature.inputs)
        self.preserve_ordering = self.config.batching.preserve_ordering
        self._holds = 0
        self._on_drained: Callable[[], None] | None = None
        self.batcher = Batcher(self.name, _batcher_options(loaded), host.reactor, self.statistics, host.budget)
        self._instances = InstanceGroup(loaded, self.batcher, host, self.statistics.nan)

    @property
    def config(self) -> ModelConfig:
        """The configuration that the model was loaded with."""
        return self._loaded.source.config

    @property
    def effective(self) -> EffectiveConfig:
        """The configuration in force, completed from the graph and the server."""
        return effective_config(self._loaded)

    @property
    def backend(self) -> str:
        """The runtime that executes the model."""
        return self._engine.backend

    @property
    def device(self) -> str:
        """Where it executes: "cpu", "gpu:0" or "gpu:0,1"."""
        devices = list(self.placed)
        return devices[0] + "".join(f",{device.removeprefix('gpu:')}" for device in devices[1:])

    @property
    def placed(self) -> Mapping[str, int]:
        """The number of instances by device."""
        return {placed.engine.device: placed.instances for placed in self._loaded.opened.engines}

    @property
    def facts(self) -> Mapping[str, str]:
        """How it is executed, in names and texts for those who ask."""
        return self._loaded.opened.facts

    @property
    def awaits_engine(self) -> bool:
        """Whether it serves only until the model's TensorRT engine is built."""
        return self._loaded.awaits_engine

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

    def on_broken(self, call: Callable[[str], None]) -> None:
        """Has `call` told the reason once nothing is left that could run the model."""
        self._instances.on_broken = call

    def start(self, on_ready: Ready) -> None:
        """Starts the instances; `on_ready` gets None once all are warm, or the first failure."""
        self._instances.start(on_ready)

    def check(self, inputs: Mapping[str, np.ndarray]) -> tuple[int, BatchKey]:
        """The rows of inputs that fit the model, and what they can share a batch by. Raises InvalidRequest."""
        self._check_inputs(inputs)
        if not self.max_batch_size:
            return 1, ()
        return request_rows(self.name, inputs, self.max_batch_size), self._batch_key(inputs)

    def check_batch(self, inputs: Mapping[str, np.ndarray]) -> tuple[int, BatchKey]:
        """The same for a batch of any size, that will be cut into pieces. Raises InvalidRequest."""
        self._check_inputs(inputs)
        rows = batch_rows(self.name, inputs, self.max_batch_size, self.batching_reason)
        return rows, self._batch_key(inputs)

    def submit(self, requests: Sequence[InferRequest]) -> None:
        """Takes requests whose inputs have been checked."""
        if self._cache is not None:
            now = self._now()
            requests = [request for request in requests if not self._cache.answer(request, now)]
        self.batcher.submit(requests)

    def cancel(self, request: InferRequest) -> None:
        """Gives up a request whose caller is gone."""
        self.batcher.cancel(request)

    def hold(self) -> None:
        """Puts a drain off: what was accepted is a batch of which some pieces are still to be submitted."""
        self._holds += 1

    def release(self) -> None:
        """Takes a `hold` back."""
        self._holds -= 1
        if not self._holds and self._on_drained is not None:
            self.batcher.drain(self._on_drained)

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Takes nothing new once nobody holds the model; calls `on_drained` when all that was accepted is answered."""
        self._on_drained = on_drained
        if not self._holds:
            self.batcher.drain(on_drained)

    def abort(self, error: RequestError) -> None:
        """Fails everything that waits."""
        self.batcher.abort(error)

    def stop(self) -> None:
        """Ends the instances after what they run now."""
        self._instances.stop()
        if self._cache is not None:
            self._cache.close()

    def close(self, timeout_s: float) -> bool:
        """Waits for the instances' end and frees the engine; False where one still runs. From any thread, blocking."""
        return self._instances.close(timeout_s)

    def _check_inputs(self, inputs: Mapping[str, np.ndarray]) -> None:
        ranges = self._engine.shape_ranges
        check_inputs(self.name, self.signature, inputs, batched=self.max_batch_size > 0, ranges=ranges)

    def _batch_key(self, inputs: Mapping[str, np.ndarray]) -> BatchKey:
        # Where only the rows can differ, all requests can share a batch.
        return () if self._one_key else tuple(inputs[spec.name].shape[1:] for spec in self.signature.inputs)


def _batcher_options(loaded: LoadedModel) -> BatcherOptions:
    config = loaded.source.config
    batching = config.batching
    delay_s, preferred = batching.max_queue_delay_us / 1e6, batching.preferred_batch_sizes
    return BatcherOptions(
        BatchPolicy(loaded.max_batch_size or 1, delay_s, preferred, loaded.fixed_rows),
        _queue_policy(config),
        batched=loaded.max_batch_size > 0,
        inline_rows=loaded.inline_rows,
        threads=loaded.engine.thread_choices,
        run_timeout_s=config.run_timeout_s or math.inf,
    )


def _queue_policy(config: ModelConfig) -> QueuePolicy:
    batching = config.batching
    return QueuePolicy(
        batching.max_queue_size,
        batching.max_queue_bytes,
        levels=batching.priority_levels,
        default_level=batching.default_priority_level,
        default=_level_policy(batching, 0),
        by_level={level.level: _level_policy(level, level.max_queue_size) for level in config.levels},
    )


def _level_policy(config: BatchConfig | LevelConfig, max_requests: int) -> LevelPolicy:
    return LevelPolicy(
        max_requests,
        timeout_s=config.default_timeout_us / 1e6 or math.inf,
        delay=config.timeout_action == "delay",
        allow_override=config.allow_timeout_override,
    )
