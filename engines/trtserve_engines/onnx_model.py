"""Reads an ONNX file without running it: signature, opset, external data, digest. Knows no runtime.

External data is checked before any library opens it: a model may only name files below its own folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, defs

from trtserve_engines.by_value import by_value
from trtserve_engines.errors import ModelFileError
from trtserve_engines.regular_file import read_regular
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec

_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})

# Named one by one because the onnx package gives float32 for types that numpy lacks, until its version 1.19.
_NUMPY_TYPES: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT16: np.dtype(np.uint16),
    TensorProto.INT16: np.dtype(np.int16),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.STRING: np.dtype(object),
    TensorProto.BOOL: np.dtype(np.bool_),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.UINT32: np.dtype(np.uint32),
    TensorProto.UINT64: np.dtype(np.uint64),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class OnnxModel:
    """What an ONNX file says of itself.

    `has_control_flow` says that a run may take longer for some values; `by_value` names the inputs and outputs that may
    change during one; `external_files` are resolved paths, sorted; `file_sha256` is of the very bytes that the rest was
    read from.
    """

    path: Path
    signature: Signature
    opset: int
    has_control_flow: bool
    by_value: frozenset[str]
    external_files: tuple[Path, ...]
    file_sha256: str

    def digest(self) -> str:
        """SHA-256, in hex, over the digests of the file and of all its external data. Reads only the latter."""
        return _joined(self.file_sha256, *map(_file_sha256, self.external_files))

    def digest_now(self) -> str:
        """The digest of what the files hold now, which is another one where they were changed. Reads all of them."""
        return _joined(*map(_file_sha256, (self.path, *self.external_files)))


def read_onnx_model(path: Path) -> OnnxModel:
    """Reads and checks the model at `path`. Raises ModelFileError with the reason and what to do."""
    data = _read(path)
    model = _parse(data, path)
    return OnnxModel(
        path=path,
        signature=_signature(model, path),
        opset=_checked_opset(model, path),
        has_control_flow=_has_control_flow(model),
        by_value=by_value(model.graph),
        external_files=tuple(_external_files(model, path)),
        file_sha256=hashlib.sha256(data).hexdigest(),
    )


def _joined(*digests: str) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def external_data_paths(path: Path) -> tuple[Path, ...]:
    """Where the external data that the model at `path` names should lie, whether it is there; none for no model."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return _external_data_paths(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)  # who watches a model asks again and again
def _external_data_paths(path: Path, size: int, changed_ns: int) -> tuple[Path, ...]:
    try:
        model = _parse(_read(path), path)
    except ModelFileError:
        return ()
    locations = {location for tensor in _tensors(model) for location in _external_location(tensor)}
    return tuple(path.parent / location for location in sorted(locations) if location)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise ModelFileError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ModelFileError(f"{path} is a folder; wanted is an ONNX file") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelFileError(
            f"{path} ({len(data)} bytes) is not an ONNX model or is cut off: {error}; export or copy it again"
        ) from error
    if not model.opset_import or not model.graph.output:
        raise ModelFileError(
            f"{path} ({len(data)} bytes) is not a whole ONNX model: it has no operator set or no outputs;"
            " export or copy it again"
        )
    return model


def _has_control_flow(model: onnx.ModelProto) -> bool:
    """Whether how much is computed may depend on the values of the inputs."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return any(node.op_type in _CONTROL_FLOW for node in nodes)


def _checked_opset(model: onnx.ModelProto, path: Path) -> int:
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    newest = int(defs.onnx_opset_version())
    if opset > newest:
        raise ModelFileError(
            f"{path} uses ONNX opset {opset}; the newest that is known here is {newest}."
            f" Export it with opset {newest} or lower, or install newer onnx and onnxruntime packages"
        )
    return opset


def _signature(model: onnx.ModelProto, path: Path) -> Signature:
    # Before IR version 4 initializers had to be listed as inputs too; they are weights, not something to be fed.
    weights = {tensor.name for tensor in model.graph.initializer}
    return Signature(
        inputs=tuple(_tensor_spec(value, path) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_tensor_spec(value, path) for value in model.graph.output),
    )


def _tensor_spec(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "nothing"
        raise ModelFileError(f"{path}: {value.name!r} is a {kind}; only tensors can be served")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelFileError(
            f"{path}: {value.name!r} has no shape, not even its number of dimensions; export it with one"
        )
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else DYNAMIC for dim in tensor.shape.dim)
    return TensorSpec(value.name, _numpy_type(tensor.elem_type, value.name, path), shape)


def _numpy_type(elem_type: int, name: str, path: Path) -> np.dtype:
    dtype = _NUMPY_TYPES.get(elem_type)
    if dtype is not None:
        return dtype
    names = {number: type_name for type_name, number in TensorProto.DataType.items()}
    if elem_type not in names or elem_type == TensorProto.UNDEFINED:
        raise ModelFileError(f"{path}: {name!r} has the ONNX element type {elem_type}, which is unknown here")
    raise ModelFileError(
        f"{path}: {name!r} has the ONNX element type {names[elem_type]}, which cannot be served;"
        f" wanted is one of {', '.join(names[number] for number in _NUMPY_TYPES)}"
    )


def _external_files(model: onnx.ModelProto, path: Path) -> Iterator[Path]:
    folder = path.parent.resolve()
    locations = {location for tensor in _tensors(model) for location in _external_location(tensor)}
    for location in sorted(locations):
        yield _checked_external_file(location, folder, path)


def _checked_external_file(location: str, folder: Path, path: Path) -> Path:
    try:
        target = (folder / location).resolve()
        is_file = target.is_file()
    except (OSError, ValueError) as error:  # too long, or with a zero byte
        raise ModelFileError(f"{path} names external data {location[:100]!r}, which no file can be: {error}") from None
    if not location or os.path.isabs(location) or not target.is_relative_to(folder):
        raise ModelFileError(
            f"{path} names external data {location!r}, which lies outside its folder {folder}; it was not opened."
            " Save the model with its data beside it"
        )
    if not is_file:
        raise ModelFileError(f"{path} needs its external data {location!r}, which is not in {folder}; copy it there")
    if not os.access(target, os.R_OK):
        raise ModelFileError(f"{path} needs its external data {target}, which cannot be read; check its permissions")
    return target


def _external_location(tensor: TensorProto) -> Iterator[str]:
    if tensor.data_location == TensorProto.EXTERNAL:
        yield next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor that the model stores, in subgraphs, attributes and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
        yield from _attribute_tensors(function.attribute_proto)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield sparse.values
            yield sparse.indices
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(graph)
