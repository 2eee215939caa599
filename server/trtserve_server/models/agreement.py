"""A model's signature, from what its graph and its configuration say of its tensors; checks that the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trtserve_engines.config import ConfigError
from trtserve_engines.errors import ModelFileError
from trtserve_engines.onnx_model import OnnxModel
from trtserve_engines.signature import DYNAMIC, Signature, TensorSpec, shapes_agree
from trtserve_protos import dtypes
from trtserve_protos.errors import DataTypeError
from trtserve_server.config import ModelConfig, TensorConfig


def agreed_signature(config: ModelConfig, graph: Signature, max_batch_size: int) -> Signature:
    """The graph's signature with the sizes that the configuration fixes. Raises ConfigError.

    The configuration's dims are those behind the batch dimension where `max_batch_size` is above 0.
    """
    return Signature(
        _agreed(config.inputs, graph.inputs, "input", max_batch_size),
        _agreed(config.outputs, graph.outputs, "output", max_batch_size),
    )


def check_types(model: OnnxModel) -> None:
    """Raises ModelFileError where a tensor of the graph has a type that the protocol cannot carry."""
    for spec in (*model.signature.inputs, *model.signature.outputs):
        try:
            dtypes.from_numpy(spec.dtype)
        except DataTypeError as error:
            raise ModelFileError(f"{model.path}: {spec.name!r} cannot be sent or received: {error}") from None


def _agreed(
    given: Sequence[TensorConfig], specs: Sequence[TensorSpec], kind: str, max_batch_size: int
) -> tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in specs}
    for tensor in given:
        spec = by_name.get(tensor.name)
        if spec is None:
            raise ConfigError(
                f"{kind} {tensor.name!r} is configured, but the graph has {', '.join(map(repr, by_name))}"
            )
        datatype = dtypes.from_numpy(spec.dtype).name
        if tensor.datatype and tensor.datatype != datatype:
            raise ConfigError(f"{kind} {spec.name!r}: {tensor.datatype} is configured, the graph has {datatype}")
        shape = spec.shape[1:] if max_batch_size else spec.shape
        if tensor.dims is not None and not shapes_agree(tensor.dims, shape):
            raise ConfigError(
                f"{kind} {spec.name!r}: dims {list(tensor.dims)} are configured, the graph has {list(shape)}"
                + (" behind its batch dimension" if max_batch_size else "")
            )
        if tensor.dims is not None:
            by_name[spec.name] = replace(spec, shape=_narrowed(spec.shape, tensor.dims))
    return tuple(by_name.values())


def _narrowed(shape: Sequence[int], dims: Sequence[int]) -> tuple[int, ...]:
    """The shape with sizes from `dims`, which stand at its end, where it has none itself."""
    first = len(shape) - len(dims)
    fixed = [dim if size == DYNAMIC else size for size, dim in zip(shape[first:], dims, strict=True)]
    return (*shape[:first], *fixed)
