"""Arrays to tensor bytes and back: raw form, BYTES framing, typed contents.

Reading makes read-only views of the message's own bytes; nothing is copied but BYTES elements and typed contents,
which have no layout that numpy could look at. Element counts are checked before anything is allocated.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trtserve_protos import dtypes
from trtserve_protos.dtypes import BYTES, DataType
from trtserve_protos.errors import TensorError

if TYPE_CHECKING:
    from trtserve_protos.oip import InferTensorContents

_LENGTH = struct.Struct("<I")
# What numpy can hold. Without a limit the product of a million sizes takes minutes, and its digits fill the message.
_MAX_DIMENSIONS = 64
_SMALL_BYTES = 1024
"""Of a tensor up to this a copy is made sooner than a view."""

_LITTLE_ENDIAN = sys.byteorder == "little"
_BOOL = dtypes.from_name("BOOL")
_FIELD_TYPES = {
    "bool_contents": np.dtype(bool),
    "int_contents": np.dtype(np.int32),
    "int64_contents": np.dtype(np.int64),
    "uint_contents": np.dtype(np.uint32),
    "uint64_contents": np.dtype(np.uint64),
    "fp32_contents": np.dtype(np.float32),
    "fp64_contents": np.dtype(np.float64),
}


def element_count(shape: Sequence[int]) -> int:
    """The number of elements of a tensor of this shape. Raises TensorError for a shape that no tensor has."""
    if len(shape) > _MAX_DIMENSIONS:
        raise TensorError(f"shape has {len(shape)} dimensions; at most {_MAX_DIMENSIONS} are possible")
    if shape and min(shape) < 0:
        raise TensorError(f"shape {list(shape)} has a negative dimension; every dimension must be 0 or more")
    return math.prod(shape)


def array_from_raw(raw: bytes | memoryview, datatype: DataType, shape: Sequence[int]) -> np.ndarray:
    """A read-only array of `shape` over `raw`: row-major, little-endian. Raises TensorError where they do not fit."""
    if datatype is BYTES:
        return _array_from_elements(_unframe(raw, element_count(shape)), shape)
    wanted = element_count(shape) * datatype.item_size
    if len(raw) != wanted:
        raise TensorError(
            f"{len(raw)} bytes given, {wanted} wanted for datatype {datatype.name} and shape {list(shape)}"
        )
    array = _reshaped(np.frombuffer(raw, datatype.numpy), shape)
    if datatype is _BOOL and array.size and array.view(np.uint8).max() > 1:
        raise TensorError("BOOL bytes must be 0 or 1; another value is among those given")
    return array


def raw_from_array(array: np.ndarray) -> bytes | memoryview:
    """The raw form of an array: a view of its own memory where that is large and laid out as the wire wants it."""
    if array.dtype.kind in "SUO":
        return _frame(array)
    if not (_LITTLE_ENDIAN and array.dtype.isnative and array.flags.c_contiguous):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    if array.nbytes <= _SMALL_BYTES:
        return array.tobytes()
    return array.reshape(-1).view(np.uint8).data


def array_from_contents(contents: InferTensorContents, datatype: DataType, shape: Sequence[int]) -> np.ndarray:
    """An array of `shape` from the typed contents. Raises TensorError where field, count or a value does not fit."""
    field = _contents_field(datatype)
    for descriptor, _ in contents.ListFields():
        if descriptor.name != field:
            raise TensorError(f"contents.{descriptor.name} given, contents.{field} wanted for {datatype.name}")
    elements = getattr(contents, field)
    wanted = element_count(shape)
    if len(elements) != wanted:
        raise TensorError(f"{len(elements)} elements in contents.{field} given, {wanted} wanted for {list(shape)}")
    if datatype is BYTES:
        return _array_from_elements(elements, shape)
    return _reshaped(_narrowed(np.array(elements, _FIELD_TYPES[field]), datatype), shape)


def fill_contents(contents: InferTensorContents, array: np.ndarray) -> None:
    """Writes the elements of `array` into `contents`. Raises TensorError for a type that travels raw only."""
    datatype = dtypes.from_numpy(array.dtype)
    elements = list(map(_bytes_of, array.flat)) if datatype is BYTES else array.ravel().tolist()
    getattr(contents, _contents_field(datatype)).extend(elements)


def has_contents(datatype: DataType) -> bool:
    """Whether the protocol has a typed field for this datatype; FP16 and BF16 travel raw only."""
    return bool(datatype.contents_field)


def _narrowed(elements: np.ndarray, datatype: DataType) -> np.ndarray:
    """Small integers travel in fields of 32 bits; a value that does not fit the tensor's own type is refused."""
    array = elements.astype(datatype.numpy)
    if elements.dtype != array.dtype and not np.array_equal(elements, array):
        value = elements[elements != array][0]
        raise TensorError(f"contents.{datatype.contents_field} holds {value}, outside the range of {datatype.name}")
    return array


def _reshaped(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    try:
        return array.reshape(shape)
    except ValueError as error:  # more dimensions, or larger ones beside a 0, than an array can have
        raise TensorError(f"shape {str(list(shape))[:200]} cannot be held in memory: {error}") from None


def _contents_field(datatype: DataType) -> str:
    if not datatype.contents_field:
        raise TensorError(f"{datatype.name} has no field in contents; send it in raw_input_contents")
    return datatype.contents_field


def _array_from_elements(elements: Sequence[bytes], shape: Sequence[int]) -> np.ndarray:
    array = np.empty(len(elements), object)
    array[:] = elements
    return _reshaped(array, shape)


def _unframe(raw: bytes | memoryview, count: int) -> list[bytes]:
    """Splits BYTES elements: each a 4-byte little-endian length and that many bytes."""
    end = len(raw)
    if count * _LENGTH.size > end:
        raise TensorError(f"{end} bytes given, at least {count * _LENGTH.size} wanted for {count} BYTES elements")
    elements = []
    position = 0
    for index in range(count):
        start = position + _LENGTH.size
        if start > end:
            raise TensorError(f"BYTES element {index} of {count}: its length is cut off at byte {end}")
        position = start + _LENGTH.unpack_from(raw, position)[0]
        if position > end:
            raise TensorError(
                f"BYTES element {index} of {count}: {position - start} bytes announced, {end - start} left"
            )
        elements.append(bytes(raw[start:position]))
    if position != end:
        raise TensorError(f"{end - position} bytes are left over after the {count} BYTES elements of the shape")
    return elements


def _frame(array: np.ndarray) -> bytes:
    pieces = []
    for element in array.flat:
        data = _bytes_of(element)
        pieces.append(_LENGTH.pack(len(data)))
        pieces.append(data)
    return b"".join(pieces)


def _bytes_of(element: object) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode("utf-8", "surrogateescape")
    raise TensorError(f"a BYTES element must be bytes or str; {type(element).__name__} given")
