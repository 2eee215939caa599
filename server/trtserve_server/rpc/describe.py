"""What a served model says of itself in the protocol's messages: metadata, configuration, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trtserve_engines.signature import TensorSpec
from trtserve_protos import dtypes, oip
from trtserve_server.models.served_model import ServedModel
from trtserve_server.statistics import Phases

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelConfig, ModelMetadataResponse, ModelStatistics

PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
"""Triton's names of the backends."""


def model_metadata(model: ServedModel, versions: Sequence[str], building: str) -> ModelMetadataResponse:
    """Names, datatypes and shapes; how the model is served stands in the parameters.

    `building` says how far the engine is that is to take the model's place; "" where none is.
    """
    response = oip.ModelMetadataResponse(
        name=model.name, versions=versions, platform=PLATFORMS.get(model.backend, model.backend)
    )
    for spec in model.signature.inputs:
        response.inputs.add(name=spec.name, datatype=dtypes.from_numpy(spec.dtype).name, shape=spec.shape)
    for spec in model.signature.outputs:
        response.outputs.add(name=spec.name, datatype=dtypes.from_numpy(spec.dtype).name, shape=spec.shape)
    response.parameters["backend"].string_param = model.backend
    response.parameters["device"].string_param = model.device
    for name, text in model.facts.items():
        response.parameters[name].string_param = text
    if building:
        response.parameters["building"].string_param = building
    response.parameters["instances"].int64_param = model.instances
    response.parameters["max_batch_size"].int64_param = model.max_batch_size
    response.parameters["batching_reason"].string_param = model.batching_reason
    return response


def model_config(model: ServedModel) -> ModelConfig:
    """The effective configuration, completed from the graph."""
    config = oip.ModelConfig(
        name=model.name,
        platform=PLATFORMS.get(model.backend, model.backend),
        backend=model.backend,
        max_batch_size=model.max_batch_size,
        default_model_filename=model.config.filename,
    )
    labels = {tensor.name: tensor.label_filename for tensor in model.config.outputs}
    for spec in model.signature.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, model))
    for spec in model.signature.outputs:
        config.output.add(
            name=spec.name,
            data_type=_data_type(spec),
            dims=_dims(spec, model),
            label_filename=labels.get(spec.name, ""),
        )
    kind = "KIND_GPU" if model.device.startswith("gpu") else "KIND_CPU"
    config.instance_group.add(name=f"{model.name}_0", count=model.instances, kind=kind)
    if model.max_batch_size:
        batching = model.config.batching
        config.dynamic_batching.preferred_batch_size.extend(batching.preferred_batch_sizes)
        config.dynamic_batching.max_queue_delay_microseconds = batching.max_queue_delay_us
        config.dynamic_batching.default_queue_policy.max_queue_size = batching.max_queue_size
    config.parameters["batching_reason"].string_value = model.batching_reason
    return config


def model_statistics(model: ServedModel) -> ModelStatistics:
    """Sums since the model was loaded."""
    statistics = model.statistics
    message = oip.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=statistics.last_inference_ms,
        inference_count=statistics.inferences,
        execution_count=statistics.executions,
    )
    answered = statistics.requests.count
    stats = message.inference_stats
    stats.success.count, stats.success.ns = answered, statistics.success_ns
    stats.fail.count, stats.fail.ns = sum(statistics.failures.values()), statistics.failure_ns
    stats.queue.count, stats.queue.ns = answered, statistics.queue_ns
    _fill_phases(stats, statistics.requests)
    for rows, phases in sorted(statistics.per_batch.items()):
        _fill_phases(message.batch_stats.add(batch_size=rows), phases)
    return message


def _fill_phases(message: object, phases: Phases) -> None:
    for name in ("input", "infer", "output"):
        duration = getattr(message, f"compute_{name}")
        duration.count = phases.count
        duration.ns = getattr(phases, "compute_ns" if name == "infer" else f"{name}_ns")


def _dims(spec: TensorSpec, model: ServedModel) -> Sequence[int]:
    return spec.shape[1:] if model.max_batch_size else spec.shape


def _data_type(spec: TensorSpec) -> str:
    return dtypes.from_numpy(spec.dtype).config_name
