"""The Open Inference Protocol with Triton's additions: each call from its message to the core and back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from trtserve_protos import oip
from trtserve_server import __version__
from trtserve_server.errors import RequestError
from trtserve_server.models.catalogue import State
from trtserve_server.models.registry import Registry
from trtserve_server.request import InferRequest, Outcome
from trtserve_server.rpc import describe
from trtserve_server.rpc.call_wishes import call_wishes
from trtserve_server.rpc.handlers import MessageCall, deadline_of, handlers_of, refuse
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.infer_plan import InferPlan
from trtserve_server.rpc.intake import Intake
from trtserve_server.rpc.stream import InferStream
from trtserve_server.tracing import Traced
from trtserve_server.transport.call import Call, Handlers

if TYPE_CHECKING:
    from trtserve_protos.oip import (
        ModelConfigRequest,
        ModelConfigResponse,
        ModelMetadataRequest,
        ModelMetadataResponse,
        ModelReadyRequest,
        ModelReadyResponse,
        ModelStatisticsRequest,
        ModelStatisticsResponse,
        ServerLiveRequest,
        ServerLiveResponse,
        ServerMetadataRequest,
        ServerMetadataResponse,
        ServerReadyRequest,
        ServerReadyResponse,
    )

EXTENSIONS = (
    "classification",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)
"""Triton's names of what is implemented here, in its order; nothing that is not."""

SHARED_MEMORY_EXTENSIONS = frozenset({"system_shared_memory", "cuda_shared_memory"})
"""Those that are not offered everywhere."""


class _Flight:
    """A request of a unary call between its arrival and its answer."""

    __slots__ = ("_call", "_codec", "_id", "_timing", "_traced", "plan", "request")

    plan: InferPlan
    request: InferRequest

    def __init__(self, codec: InferCodec, call: Call, request_id: str, *, timing: bool) -> None:
        self._codec = codec
        self._call = call
        self._id = request_id
        self._timing = timing
        self._traced: Traced | None = None

    def trace(self, traced: Traced) -> None:
        """Lets the trace of the request go on until its answer is sent."""
        self._traced = traced
        traced.follow()
        self._call.add_done_callback(traced.sent)

    def complete(self, outcome: Outcome) -> None:
        """Answers the call."""
        try:
            if isinstance(outcome, RequestError):
                raise outcome
            answer = b"".join(self._codec.encode(self.plan, outcome, self._id, explained=self._timing))
        except Exception as error:
            refuse(self._call, error)
            return
        if self._traced is not None:
            self._traced.sending()
        self._call.answer(answer)

    def cancel(self) -> None:
        """The caller is gone."""
        self.plan.model.cancel(self.request)


class OipService:
    """The calls of inference.GRPCInferenceService; `messages` holds those that live in files of their own.

    `is_ready` says whether the server as a whole serves, `shared_memory` which of SHARED_MEMORY_EXTENSIONS it offers.
    """

    def __init__(
        self,
        registry: Registry,
        codec: InferCodec,
        intake: Intake,
        is_ready: Callable[[], bool],
        stream_window: int,
        *,
        shared_memory: Collection[str],
        messages: Mapping[str, MessageCall],
    ) -> None:
        self._registry = registry
        self._codec = codec
        self._intake = intake
        self._messages = messages
        self._is_ready = is_ready
        self._stream_window = stream_window
        withheld = SHARED_MEMORY_EXTENSIONS.difference(shared_memory)
        self._extensions = [name for name in EXTENSIONS if name not in withheld]
        self.streams: set[InferStream] = set()

    def handlers(self) -> Handlers:
        """By their paths."""
        return handlers_of(
            oip.METHODS,
            raw={"ModelInfer": self.model_infer},
            streams={"ModelStreamInfer": self.model_stream_infer},
            messages={
                "ServerLive": self.server_live,
                "ServerReady": self.server_ready,
                "ModelReady": self.model_ready,
                "ServerMetadata": self.server_metadata,
                "ModelMetadata": self.model_metadata,
                "ModelConfig": self.model_config,
                "ModelStatistics": self.model_statistics,
                **self._messages,
            },
        )

    def model_infer(self, data: bytes, call: Call) -> None:
        """Runs a request and answers the call with its outputs. Raises RequestError and ProtocolError."""
        self._intake.enter(call)
        wishes = call_wishes(call.metadata)
        parts = self._codec.split(data)
        flight = _Flight(self._codec, call, parts.id, timing=wishes.timing)
        now = monotonic()
        plan, request = self._codec.decode(parts, flight.complete, now, deadline_of(call, now), len(data))
        if not wishes.cache:
            request.cached_outputs = None
        flight.plan, flight.request = plan, request
        if isinstance(request.complete, Traced):
            flight.trace(request.complete)
        call.on_cancel = flight.cancel
        plan.model.submit((request,))

    def model_stream_infer(self, call: Call) -> None:
        """Runs the requests of a stream. Raises ServerStopping and InvalidRequest."""
        self._intake.enter(call)
        stream = InferStream(self._codec, call, self._stream_window, self.streams.discard)
        self.streams.add(stream)
        stream.begin()

    def stop_streams(self) -> None:
        """Ends every stream once what was received from it is answered."""
        for stream in tuple(self.streams):
            stream.stop()

    async def server_live(self, request: ServerLiveRequest, call: Call) -> ServerLiveResponse:
        """Whether the process answers: yes."""
        return oip.ServerLiveResponse(live=True)

    async def server_ready(self, request: ServerReadyRequest, call: Call) -> ServerReadyResponse:
        """Whether requests can be sent."""
        return oip.ServerReadyResponse(ready=self._is_ready())

    async def model_ready(self, request: ModelReadyRequest, call: Call) -> ModelReadyResponse:
        """Whether this model, or this version of it, can be sent requests. Raises ModelNotFound."""
        entry = self._registry.entry(request.name, request.version)
        return oip.ModelReadyResponse(ready=entry.state is State.READY)

    async def server_metadata(self, request: ServerMetadataRequest, call: Call) -> ServerMetadataResponse:
        """Name, version and what is implemented beyond the core protocol."""
        return oip.ServerMetadataResponse(name="trtserve", version=__version__, extensions=self._extensions)

    async def model_metadata(self, request: ModelMetadataRequest, call: Call) -> ModelMetadataResponse:
        """What a model takes and gives. Raises ModelNotFound or ModelNotReady."""
        model = self._registry.find(request.name, request.version)
        versions = [entry.version for entry in self._registry.entries() if entry.name == model.name and entry.model]
        step = self._registry.entry(model.name, model.version).step
        return describe.model_metadata(model, versions, str(step) if step else "")

    async def model_config(self, request: ModelConfigRequest, call: Call) -> ModelConfigResponse:
        """The effective configuration in Triton's form. Raises ModelNotFound or ModelNotReady."""
        model = self._registry.find(request.name, request.version)
        return oip.ModelConfigResponse(config=describe.model_config(model))

    async def model_statistics(self, request: ModelStatisticsRequest, call: Call) -> ModelStatisticsResponse:
        """What one model, or every model, has done so far. Raises ModelNotFound or ModelNotReady."""
        if request.name:
            self._registry.find(request.name, request.version)
        return oip.ModelStatisticsResponse(
            model_stats=[
                describe.model_statistics(model)
                for model in self._registry.models()
                if request.name in ("", model.name) and request.version in ("", model.version)
            ]
        )
