"""A simulated TensorRT: the names, signatures, enums and rules of the real bindings, executed by ONNX Runtime.

It stands in for the real package on machines without a GPU, in tests only. Parsing is done by the onnx package, an
engine file holds the ONNX graph, a run is enqueued on a stream of the stand-in libcuda and works on its device memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._basics import Dims, IHostMemory, ILogger, IOutputAllocator, IProgressMonitor, Logger
from ._builder import Builder
from ._config import IBuilderConfig, IOptimizationProfile, ITimingCache
from ._context import IExecutionContext
from ._graph import DATA_TYPES
from ._network import ILayer, INetworkDefinition, ITensor
from ._parser import OnnxParser, ParserError
from ._plugins import IPluginRegistry, get_plugin_registry, init_libnvinfer_plugins
from ._real import (
    VERSION as __version__,
    BuilderFlag,
    DataType,
    EngineStat,
    ErrorCode,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    LayerInformationFormat,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParserFlag,
    PreviewFeature,
    ProfilingVerbosity,
    TacticSource,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
    TilingOptimizationLevel,
)
from ._runtime import EngineInspector, ICudaEngine, IRuntimeConfig, Runtime

float32, float16, bfloat16 = DataType.FLOAT, DataType.HALF, DataType.BF16
int8, uint8, int32, int64 = DataType.INT8, DataType.UINT8, DataType.INT32, DataType.INT64
bool = DataType.BOOL
fp8, int4, fp4, e8m0 = DataType.FP8, DataType.INT4, DataType.FP4, DataType.E8M0


def nptype(trt_type: Any) -> Any:
    """The numpy type; raises TypeError for what numpy lacks, BF16 too, as the real one does."""
    for data_type, dtype in DATA_TYPES.values():
        if data_type == trt_type and data_type != DataType.BF16:
            return dtype.type
    raise TypeError(f"Could not resolve TensorRT datatype to an equivalent numpy datatype: {trt_type}")


def volume(iterable: Any) -> int:
    """The number of elements of a shape."""
    return int(np.prod(tuple(iterable))) if len(iterable) else 1


def get_nv_onnx_parser_version() -> int:
    """The version of the ONNX parser as one number."""
    major, minor, patch = (int(part) for part in __version__.split(".")[:3])
    return major * 10000 + minor * 100 + patch


__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "Dims",
    "EngineInspector",
    "EngineStat",
    "ErrorCode",
    "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IOutputAllocator",
    "IPluginRegistry",
    "IProgressMonitor",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserFlag",
    "ParserError",
    "PreviewFeature",
    "ProfilingVerbosity",
    "Runtime",
    "TacticSource",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "TilingOptimizationLevel",
    "__version__",
    "get_nv_onnx_parser_version",
    "get_plugin_registry",
    "init_libnvinfer_plugins",
    "nptype",
    "volume",
]
