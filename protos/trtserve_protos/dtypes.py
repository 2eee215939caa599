"""The datatype table: wire name, numpy type, item size, ONNX number, field of the typed contents.

Every other module asks here; none spells a datatype's name itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from trtserve_protos.errors import DataTypeError


@dataclass(frozen=True)
class DataType:
    """One datatype of the protocol.

    `item_size` is in bytes, 0 for BYTES whose elements differ in size. `contents_field` names the field of
    InferTensorContents, "" where the protocol has none. `onnx` is the number in ONNX's TensorProto.DataType.
    """

    name: str
    numpy_name: str
    item_size: int
    onnx: int
    contents_field: str

    @cached_property
    def numpy(self) -> np.dtype:
        """The numpy type; object for BYTES. BF16 needs the package ml_dtypes: ImportError says so where it lacks."""
        if self.numpy_name != "bfloat16":
            return np.dtype(self.numpy_name)
        try:
            import ml_dtypes
        except ImportError as error:
            raise ImportError("BF16 tensors need the package ml_dtypes: pip install ml_dtypes") from error
        dtype: np.dtype = np.dtype(ml_dtypes.bfloat16)
        return dtype

    @property
    def config_name(self) -> str:
        """The name in Triton's configuration files, for example TYPE_FP32."""
        return "TYPE_STRING" if self is BYTES else f"TYPE_{self.name}"


BYTES = DataType("BYTES", "object", 0, 8, "bytes_contents")

TABLE: tuple[DataType, ...] = (
    DataType("BOOL", "bool", 1, 9, "bool_contents"),
    DataType("UINT8", "uint8", 1, 2, "uint_contents"),
    DataType("UINT16", "uint16", 2, 4, "uint_contents"),
    DataType("UINT32", "uint32", 4, 12, "uint_contents"),
    DataType("UINT64", "uint64", 8, 13, "uint64_contents"),
    DataType("INT8", "int8", 1, 3, "int_contents"),
    DataType("INT16", "int16", 2, 5, "int_contents"),
    DataType("INT32", "int32", 4, 6, "int_contents"),
    DataType("INT64", "int64", 8, 7, "int64_contents"),
    DataType("FP16", "float16", 2, 10, ""),
    DataType("FP32", "float32", 4, 1, "fp32_contents"),
    DataType("FP64", "float64", 8, 11, "fp64_contents"),
    DataType("BF16", "bfloat16", 2, 16, ""),
    BYTES,
)

_BY_NAME = {datatype.name: datatype for datatype in TABLE}
_BY_NUMPY_NAME = {datatype.numpy_name: datatype for datatype in TABLE}
_BY_ONNX = {datatype.onnx: datatype for datatype in TABLE}
_BY_CONFIG_NAME = {datatype.config_name: datatype for datatype in TABLE}


def from_name(name: str) -> DataType:
    """The datatype with this wire name. Raises DataTypeError."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise DataTypeError(f"datatype {name!r} is unknown; known are {', '.join(_BY_NAME)}") from None


@lru_cache(maxsize=64)  # numpy makes the names of its types anew at each call
def from_numpy(dtype: np.dtype) -> DataType:
    """The datatype that carries arrays of this numpy type, in whatever byte order. Raises DataTypeError."""
    if dtype.kind in "SUO":
        return BYTES
    try:
        return _BY_NUMPY_NAME[dtype.name]
    except KeyError:
        wanted = ", ".join(datatype.numpy_name for datatype in TABLE)
        raise DataTypeError(f"numpy type {dtype} has no datatype on the wire; convert to one of {wanted}") from None


def from_onnx(number: int) -> DataType:
    """The datatype for an ONNX element type number. Raises DataTypeError."""
    try:
        return _BY_ONNX[number]
    except KeyError:
        raise DataTypeError(f"ONNX element type {number} has no datatype on the wire") from None


def from_config_name(name: str) -> DataType:
    """The datatype for a name of Triton's configuration, for example TYPE_FP32. Raises DataTypeError."""
    try:
        return _BY_CONFIG_NAME[name]
    except KeyError:
        raise DataTypeError(f"data_type {name!r} is unknown; known are {', '.join(_BY_CONFIG_NAME)}") from None
