"""Client of the Open Inference Protocol: arrays in, arrays out, over gRPC.

`Client` is here; its asynchronous twin is `trtserve_client.aio.Client`, imported by itself.
"""

from trtserve_client.channel import ChannelOptions, TlsOptions
from trtserve_client.client import Client
from trtserve_client.cuda_shared_memory import CudaSharedMemory
from trtserve_client.errors import (
    AlreadyExists,
    BadResponse,
    Cancelled,
    ClientError,
    ClosedClientError,
    DeadlineExceeded,
    FailedPrecondition,
    ForkedClientError,
    InputError,
    InternalError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServerError,
    StreamError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    UnknownError,
    error_from_status,
)
from trtserve_client.metadata import (
    CudaSharedMemoryStatus,
    ModelIndex,
    ModelMetadata,
    ServerMetadata,
    SharedMemoryStatus,
    TensorMetadata,
)
from trtserve_client.result import Result
from trtserve_client.rows import Rows
from trtserve_client.shared_memory import SharedMemory, SharedRoom, SharedTensor
from trtserve_protos.timing import Timing

__all__ = [
    "AlreadyExists",
    "BadResponse",
    "Cancelled",
    "ChannelOptions",
    "Client",
    "ClientError",
    "ClosedClientError",
    "CudaSharedMemory",
    "CudaSharedMemoryStatus",
    "DeadlineExceeded",
    "FailedPrecondition",
    "ForkedClientError",
    "InputError",
    "InternalError",
    "InvalidRequest",
    "ModelIndex",
    "ModelMetadata",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Result",
    "Rows",
    "ServerError",
    "ServerMetadata",
    "SharedMemory",
    "SharedMemoryStatus",
    "SharedRoom",
    "SharedTensor",
    "StreamError",
    "TensorMetadata",
    "Timing",
    "TlsOptions",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UnknownError",
    "error_from_status",
]
