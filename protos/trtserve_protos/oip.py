"""The Open Inference Protocol with Triton's additions: message classes and the table of its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtserve_protos.methods import Method, methods_of
from trtserve_protos.pool import POOL, classes_on_demand

SERVICE = "inference.GRPCInferenceService"

METHODS: dict[str, Method] = methods_of(SERVICE)

if TYPE_CHECKING:
    from trtserve_protos._generated.oip.model_config_pb2 import (
        ModelConfig as ModelConfig,
        ModelQueuePolicy as ModelQueuePolicy,
        ModelWarmup as ModelWarmup,
    )
    from trtserve_protos._generated.oip.open_inference_pb2 import (
        CudaSharedMemoryRegisterRequest as CudaSharedMemoryRegisterRequest,
        CudaSharedMemoryRegisterResponse as CudaSharedMemoryRegisterResponse,
        CudaSharedMemoryStatusRequest as CudaSharedMemoryStatusRequest,
        CudaSharedMemoryStatusResponse as CudaSharedMemoryStatusResponse,
        CudaSharedMemoryUnregisterRequest as CudaSharedMemoryUnregisterRequest,
        CudaSharedMemoryUnregisterResponse as CudaSharedMemoryUnregisterResponse,
        InferParameter as InferParameter,
        InferTensorContents as InferTensorContents,
        LogSettingsRequest as LogSettingsRequest,
        LogSettingsResponse as LogSettingsResponse,
        ModelConfigRequest as ModelConfigRequest,
        ModelConfigResponse as ModelConfigResponse,
        ModelInferRequest as ModelInferRequest,
        ModelInferResponse as ModelInferResponse,
        ModelMetadataRequest as ModelMetadataRequest,
        ModelMetadataResponse as ModelMetadataResponse,
        ModelReadyRequest as ModelReadyRequest,
        ModelReadyResponse as ModelReadyResponse,
        ModelRepositoryParameter as ModelRepositoryParameter,
        ModelStatistics as ModelStatistics,
        ModelStatisticsRequest as ModelStatisticsRequest,
        ModelStatisticsResponse as ModelStatisticsResponse,
        ModelStreamInferResponse as ModelStreamInferResponse,
        RepositoryIndexRequest as RepositoryIndexRequest,
        RepositoryIndexResponse as RepositoryIndexResponse,
        RepositoryModelLoadRequest as RepositoryModelLoadRequest,
        RepositoryModelLoadResponse as RepositoryModelLoadResponse,
        RepositoryModelUnloadRequest as RepositoryModelUnloadRequest,
        RepositoryModelUnloadResponse as RepositoryModelUnloadResponse,
        ServerLiveRequest as ServerLiveRequest,
        ServerLiveResponse as ServerLiveResponse,
        ServerMetadataRequest as ServerMetadataRequest,
        ServerMetadataResponse as ServerMetadataResponse,
        ServerReadyRequest as ServerReadyRequest,
        ServerReadyResponse as ServerReadyResponse,
        SystemSharedMemoryRegisterRequest as SystemSharedMemoryRegisterRequest,
        SystemSharedMemoryRegisterResponse as SystemSharedMemoryRegisterResponse,
        SystemSharedMemoryStatusRequest as SystemSharedMemoryStatusRequest,
        SystemSharedMemoryStatusResponse as SystemSharedMemoryStatusResponse,
        SystemSharedMemoryUnregisterRequest as SystemSharedMemoryUnregisterRequest,
        SystemSharedMemoryUnregisterResponse as SystemSharedMemoryUnregisterResponse,
        TraceSettingRequest as TraceSettingRequest,
        TraceSettingResponse as TraceSettingResponse,
    )
else:
    __getattr__ = classes_on_demand(globals(), "inference")


DATA_TYPE_NUMBERS: dict[str, int] = {
    value.name: value.number for value in POOL.FindEnumTypeByName("inference.DataType").values
}
"""Triton's configuration names of datatypes, "TYPE_FP32", to their enum numbers."""
