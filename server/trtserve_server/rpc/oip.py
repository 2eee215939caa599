"""The Open Inference Protocol with Triton's additions: each call from its message to the core and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import grpc

from trtserve_protos import oip
from trtserve_server import __version__
from trtserve_server.errors import RequestError
from trtserve_server.models.catalogue import State
from trtserve_server.models.registry import Registry
from trtserve_server.request import Outcome
from trtserve_server.rpc import describe
from trtserve_server.rpc.call_wishes import NO_WISHES, CallWishes, call_wishes
from trtserve_server.rpc.handlers import Context, MessageCall, deadline_of, generic_handler
from trtserve_server.rpc.infer_codec import InferCodec
from trtserve_server.rpc.intake import Intake
from trtserve_server.rpc.settle import settle
from trtserve_server.rpc.stream import InferStream
from trtserve_server.tracing import Traced

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

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for a grpc.aio server."""
        return generic_handler(
            oip.SERVICE,
            oip.METHODS,
            raw={"ModelInfer": self.model_infer},
            asking={"ModelInfer": self.model_infer_as_asked},
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

    async def model_infer_as_asked(self, data: bytes, context: Context) -> bytes:
        """The same, as the call's metadata asks for it."""
        return await self.model_infer(data, context, call_wishes(context.invocation_metadata()))

    async def model_infer(self, data: bytes, context: Context, wishes: CallWishes = NO_WISHES) -> bytes:
        """Runs a request and gives its outputs."""
        self._intake.enter(context)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        parts = self._codec.split(data)
        now = monotonic()
        plan, request = self._codec.decode(parts, partial(settle, future), now, deadline_of(context, now), len(data))
        if not wishes.cache:
            request.cached_outputs = None
        traced = request.complete if isinstance(request.complete, Traced) else None
        if traced is not None:
            traced.follow()
            context.add_done_callback(traced.sent)
        plan.model.submit((request,))
        try:
            outcome = await future
        except asyncio.CancelledError:
            plan.model.cancel(request)
            raise
        if isinstance(outcome, RequestError):
            raise outcome
        answer = b"".join(self._codec.encode(plan, outcome, parts.id, explained=wishes.timing))
        if traced is not None:
            traced.sending()
        return answer

    async def model_stream_infer(self, context: Context) -> None:
        """Runs the requests of a stream. Raises ServerStopping."""
        self._intake.enter(context)
        stream = InferStream(self._codec, context, self._stream_window)
        self.streams.add(stream)
        try:
            await stream.run()
        finally:
            self.streams.discard(stream)

    def end_streams(self) -> None:
        """Ends every stream once what was read from it is answered."""
        for stream in self.streams:
            stream.end()

    async def server_live(self, request: ServerLiveRequest, context: Context) -> ServerLiveResponse:
        """Whether the process answers: yes."""
        return oip.ServerLiveResponse(live=True)

    async def server_ready(self, request: ServerReadyRequest, context: Context) -> ServerReadyResponse:
        """Whether requests can be sent."""
        return oip.ServerReadyResponse(ready=self._is_ready())

    async def model_ready(self, request: ModelReadyRequest, context: Context) -> ModelReadyResponse:
        """Whether this model, or this version of it, can be sent requests. Raises ModelNotFound."""
        entry = self._registry.entry(request.name, request.version)
        return oip.ModelReadyResponse(ready=entry.state is State.READY)

    async def server_metadata(self, request: ServerMetadataRequest, context: Context) -> ServerMetadataResponse:
        """Name, version and what is implemented beyond the core protocol."""
        return oip.ServerMetadataResponse(name="trtserve", version=__version__, extensions=self._extensions)

    async def model_metadata(self, request: ModelMetadataRequest, context: Context) -> ModelMetadataResponse:
        """What a model takes and gives. Raises ModelNotFound or ModelNotReady."""
        model = self._registry.find(request.name, request.version)
        versions = [entry.version for entry in self._registry.entries() if entry.name == model.name and entry.model]
        step = self._registry.entry(model.name, model.version).step
        return describe.model_metadata(model, versions, str(step) if step else "")

    async def model_config(self, request: ModelConfigRequest, context: Context) -> ModelConfigResponse:
        """The effective configuration in Triton's form. Raises ModelNotFound or ModelNotReady."""
        model = self._registry.find(request.name, request.version)
        return oip.ModelConfigResponse(config=describe.model_config(model))

    async def model_statistics(self, request: ModelStatisticsRequest, context: Context) -> ModelStatisticsResponse:
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
