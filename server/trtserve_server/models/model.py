"""What the calls and the registry need of a model that serves, be it one graph or an ensemble of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from trtserve_engines.signature import Signature
from trtserve_server.config import ModelConfig
from trtserve_server.errors import RequestError
from trtserve_server.models.effective import EffectiveConfig
from trtserve_server.request import BatchKey, InferRequest
from trtserve_server.statistics import ModelStatistics


class Model(Protocol):
    """One version of one model. All methods belong to the scheduling thread, but `close`."""

    name: str
    version: str
    parts: Sequence[str]
    """The names of the models that this one is composed of; none for a single one."""
    preserve_ordering: bool
    """Whether answers on a stream come in the order of its requests."""
    signature: Signature
    statistics: ModelStatistics

    @property
    def config(self) -> ModelConfig:
        """The configuration that the model was loaded with."""
        ...

    @property
    def effective(self) -> EffectiveConfig:
        """The configuration in force."""
        ...

    @property
    def backend(self) -> str:
        """What executes the model."""
        ...

    @property
    def device(self) -> str:
        """Where it executes."""
        ...

    @property
    def placed(self) -> Mapping[str, int]:
        """The number of instances by device; empty where there are none of its own."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """How it is executed, in names and texts for those who ask."""
        ...

    @property
    def depth(self) -> int:
        """How many ensembles lie in each other here; 0 for a single model."""
        ...

    @property
    def awaits_engine(self) -> bool:
        """Whether it serves only until its TensorRT engine is built."""
        ...

    @property
    def max_batch_size(self) -> int:
        """The most rows in a request; 0 where the model knows no rows."""
        ...

    @property
    def batching_reason(self) -> str:
        """Why the model is batched, or is not."""
        ...

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Labels of the classes, by output."""
        ...

    @property
    def instances(self) -> int:
        """How many batches may run at the same time."""
        ...

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        ...

    @property
    def load_s(self) -> float:
        """Seconds that loading took."""
        ...

    def check(self, inputs: Mapping[str, np.ndarray]) -> tuple[int, BatchKey]:
        """The rows of inputs that fit the model, and what they can share a batch by. Raises InvalidRequest."""
        ...

    def check_batch(self, inputs: Mapping[str, np.ndarray]) -> tuple[int, BatchKey]:
        """The same for a batch of any size, that will be cut into pieces. Raises InvalidRequest."""
        ...

    def submit(self, requests: Sequence[InferRequest]) -> None:
        """Takes requests whose inputs have been checked."""
        ...

    def cancel(self, request: InferRequest) -> None:
        """Gives up a request whose caller is gone."""
        ...

    def hold(self) -> None:
        """Puts a drain off: what was accepted is a batch of which some pieces are still to be submitted."""
        ...

    def release(self) -> None:
        """Takes a `hold` back."""
        ...

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Takes nothing new; calls `on_drained` when all that was accepted is answered."""
        ...

    def abort(self, error: RequestError) -> None:
        """Fails everything that waits."""
        ...

    def stop(self) -> None:
        """Ends what runs the model, after what it runs now."""
        ...

    def close(self, timeout_s: float) -> bool:
        """Frees what the model holds; False where something still runs. From any thread, blocking."""
        ...
