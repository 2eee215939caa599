"""From a configuration's `reshape` to an engine that is seen in the shapes of `dims`. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from trtserve_engines.config import ConfigError
from trtserve_engines.engine import Engine
from trtserve_engines.reshaped_engine import Reshape, ReshapedEngine
from trtserve_engines.signature import TensorSpec, shapes_agree
from trtserve_server.config import ModelConfig, TensorConfig


def reshaped(engine: Engine, config: ModelConfig) -> Engine:
    """The engine, in the shapes that the configuration gives its tensors. Raises ConfigError."""
    inputs = _ways(config, config.inputs, engine.signature.inputs, "input")
    outputs = _ways(config, config.outputs, engine.signature.outputs, "output")
    return ReshapedEngine(engine, inputs, outputs) if inputs or outputs else engine


def check_not_reshaped(config: ModelConfig) -> None:
    """Raises ConfigError for an ensemble that reshapes: its tensors are those of its models."""
    for tensor in (*config.inputs, *config.outputs):
        if tensor.reshape is not None:
            raise ConfigError(f"{tensor.name!r} has a reshape; in an ensemble, give it to the models of the steps")


def _ways(
    config: ModelConfig, given: Sequence[TensorConfig], specs: Sequence[TensorSpec], kind: str
) -> dict[str, Reshape]:
    by_name = {spec.name: spec for spec in specs}
    return {
        tensor.name: _way(config, tensor, by_name[tensor.name], kind)
        for tensor in given
        if tensor.reshape is not None and tensor.name in by_name
    }


def _way(config: ModelConfig, tensor: TensorConfig, spec: TensorSpec, kind: str) -> Reshape:
    if config.max_batch_size is None or tensor.dims is None or tensor.reshape is None:
        missing = "dims" if tensor.dims is None else "max_batch_size"
        raise ConfigError(f"{kind} {spec.name!r} has a reshape, which needs {missing}; give both")
    batch = spec.shape[:1] if config.max_batch_size else ()
    inner = (*batch, *tensor.reshape)
    if not shapes_agree(inner, spec.shape):
        raise ConfigError(
            f"{kind} {spec.name!r}: reshape {list(tensor.reshape)} is configured, the graph has"
            f" {list(spec.shape[len(batch) :])}" + (" behind its batch dimension" if batch else "")
        )
    way = Reshape(TensorSpec(spec.name, spec.dtype, (*batch, *tensor.dims)), TensorSpec(spec.name, spec.dtype, inner))
    if not way.fits:
        raise ConfigError(
            f"{kind} {spec.name!r}: dims {list(tensor.dims)} and reshape {list(tensor.reshape)} are not of one size;"
            " wanted are as many elements, and as many -1 with as many elements between them"
        )
    return way
