"""The configuration that is in force for a loaded model: what was configured, completed from the graph and the server.

What is completed is told apart from what was said. Knows no wire format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trtserve_engines.errors import EngineError
from trtserve_engines.options import as_mapping
from trtserve_engines.signature import Signature, TensorSpec
from trtserve_engines.step import Watch
from trtserve_protos import dtypes
from trtserve_server.config import InstanceGroupConfig, ModelConfig, ServerConfig, TensorConfig
from trtserve_server.models.ensemble_graph import graph_of
from trtserve_server.models.loader import LoadedModel, load_model
from trtserve_server.models.repository import ModelVersion
from trtserve_server.options import toml_text


@dataclass(frozen=True)
class EffectiveConfig:
    """`completed` says of every field that was not configured, or not wholly, where its value comes from."""

    config: ModelConfig
    completed: Mapping[str, str]


def effective_config(loaded: LoadedModel) -> EffectiveConfig:
    """What is in force for `loaded`."""
    given = loaded.source.config
    effective = completed_config(given, loaded.signature, loaded.max_batch_size, loaded.batching_reason)
    completed = dict(effective.completed)
    groups = tuple(InstanceGroupConfig(placed.instances, placed.engine.device) for placed in loaded.opened.engines)
    if given.instance_groups != groups:
        where = "the server's number" if not given.instances else "the number given, on the server's devices"
        completed["instance_groups"] = where
    config = replace(effective.config, instances=0, device="", instance_groups=groups)
    return EffectiveConfig(config, completed)


def completed_config(
    given: ModelConfig, signature: Signature, max_batch_size: int, batching_reason: str
) -> EffectiveConfig:
    """The configuration with the tensors of `signature`, whether of a graph or of an ensemble's models."""
    inputs = _tensors(given.inputs, signature.inputs, max_batch_size)
    outputs = _tensors(given.outputs, signature.outputs, max_batch_size)
    source = "from the models of the steps" if given.ensemble else "from the graph"
    completed = {}
    if given.max_batch_size is None:
        completed["max_batch_size"] = batching_reason
    if given.inputs != inputs:
        completed["inputs"] = source
    if given.outputs != outputs:
        completed["outputs"] = source
    return EffectiveConfig(replace(given, max_batch_size=max_batch_size, inputs=inputs, outputs=outputs), completed)


def effective_text(source: ModelVersion, server: ServerConfig) -> str:
    """The configuration in force for one version as TOML, with a comment on every completed value.

    Loads the model, because whether it can be batched is found by running it. Builds no
    engine. An ensemble's is what was configured: what completes it depends on other models. Raises EngineError.
    """
    if source.config.ensemble:
        graph_of(source.config)
        return toml_text(as_mapping(source.config))
    loaded = load_model(source, server, Watch(may_build=False))
    try:
        effective = effective_config(loaded)
    finally:
        loaded.opened.close()
    lines = toml_text(as_mapping(effective.config)).splitlines()
    end = next((number for number, line in enumerate(lines) if line.startswith("[")), len(lines))
    marked = [_marked(line, effective.completed) for line in lines[:end]]
    return "\n".join(marked + lines[end:])


def described(source: ModelVersion, server: ServerConfig) -> str:
    """The same, or why there is none, each line as a comment of TOML."""
    label = f"# Model {source.name}, version {source.version or '-'}"
    try:
        text = effective_text(source, server)
    except EngineError as error:
        return f"{label}: {error}"
    return "\n".join([f"{label}: {source.path}", *(f"#   {line}".rstrip() for line in text.splitlines())])


def _marked(line: str, completed: Mapping[str, str]) -> str:
    where = completed.get(line.partition(" = ")[0])
    return f"{line}  # completed: {where}" if where else line


def _tensors(
    given: Sequence[TensorConfig], specs: Sequence[TensorSpec], max_batch_size: int
) -> tuple[TensorConfig, ...]:
    by_name = {tensor.name: tensor for tensor in given}
    return tuple(
        replace(
            by_name.get(spec.name, TensorConfig(spec.name)),
            datatype=dtypes.from_numpy(spec.dtype).name,
            dims=spec.shape[1:] if max_batch_size else spec.shape,
        )
        for spec in specs
    )
