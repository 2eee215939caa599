"""What a served model says of itself in the protocol's messages: metadata, configuration, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trtserve_protos import dtypes, oip
from trtserve_server.config import (
    RANDOM,
    ZERO,
    BatchConfig,
    LevelConfig,
    ModelConfig as EffectiveModelConfig,
    StepConfig,
    TensorConfig,
    WarmupConfig,
)
from trtserve_server.models.model import Model
from trtserve_server.pbtxt import BATCHING_REASON, GRAPH_LEVELS, parameters_of
from trtserve_server.statistics import Phases

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelConfig, ModelMetadataResponse, ModelQueuePolicy, ModelStatistics, ModelWarmup

PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
"""Triton's names of the backends."""


def model_metadata(model: Model, versions: Sequence[str], building: str) -> ModelMetadataResponse:
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


def model_config(model: Model) -> ModelConfig:
    """The effective configuration, completed from the graph; read as a config.pbtxt it gives the same again."""
    effective = model.effective.config
    config = oip.ModelConfig(
        name=model.name,
        platform=PLATFORMS.get(model.backend, model.backend),
        max_batch_size=model.max_batch_size,
    )
    _fill_version_policy(config, effective.versions)
    for tensor in effective.inputs:
        _fill_reshape(config.input.add(name=tensor.name, data_type=_data_type(tensor), dims=tensor.dims), tensor)
    for tensor in effective.outputs:
        message = config.output.add(
            name=tensor.name,
            data_type=_data_type(tensor),
            dims=tensor.dims,
            label_filename=tensor.label_filename,
        )
        _fill_reshape(message, tensor)
    config.response_cache.enable = effective.response_cache
    if effective.ensemble:
        _fill_steps(config, effective.ensemble)
    else:
        _fill_execution(config, model, effective)
    config.parameters[BATCHING_REASON].string_value = model.batching_reason
    return config


def _fill_reshape(message: Any, tensor: TensorConfig) -> None:
    if tensor.reshape is not None:
        message.reshape.SetInParent()
        message.reshape.shape.extend(tensor.reshape)


def _fill_steps(config: ModelConfig, steps: Sequence[StepConfig]) -> None:
    for step in steps:
        config.ensemble_scheduling.step.add(
            model_name=step.model,
            model_version=step.version or -1,
            input_map=step.inputs,
            output_map=step.outputs,
        )


def _fill_execution(config: ModelConfig, model: Model, effective: EffectiveModelConfig) -> None:
    config.backend = model.backend
    config.default_model_filename = effective.filename
    for number, (device, count) in enumerate(model.placed.items()):
        kind, _, gpu = device.partition(":")
        gpus = [int(gpu)] if gpu else []
        config.instance_group.add(name=f"{model.name}_{number}", count=count, kind=f"KIND_{kind.upper()}", gpus=gpus)
    if model.max_batch_size:
        batching = effective.batching
        config.dynamic_batching.preferred_batch_size.extend(batching.preferred_batch_sizes)
        config.dynamic_batching.max_queue_delay_microseconds = batching.max_queue_delay_us
        config.dynamic_batching.preserve_ordering = batching.preserve_ordering
        config.dynamic_batching.priority_levels = batching.priority_levels
        config.dynamic_batching.default_priority_level = batching.default_priority_level
        _fill_queue_policy(config.dynamic_batching.default_queue_policy, batching)
        for level in effective.levels:
            _fill_queue_policy(config.dynamic_batching.priority_queue_policy[level.level], level)
    if effective.warmup_runs:
        config.model_warmup.add(name="made-up inputs", count=effective.warmup_runs)
    for warmup in effective.warmup:
        _fill_warmup(config.model_warmup.add(), warmup)
    levels = {name: level for level, name in GRAPH_LEVELS.items()}
    config.optimization.graph.level = levels[effective.onnxruntime.graph_optimization_level]
    for name, value in parameters_of(effective.onnxruntime).items():
        config.parameters[name].string_value = value


def _fill_warmup(message: ModelWarmup, warmup: WarmupConfig) -> None:
    message.name, message.batch_size, message.count = warmup.name, warmup.batch_size, warmup.count
    for tensor in warmup.inputs:
        value = message.inputs[tensor.name]
        value.dims.extend(tensor.dims or ())
        if tensor.datatype:
            value.MergeFrom(oip.ModelWarmup.Input(data_type=dtypes.from_name(tensor.datatype).config_name))
        if tensor.data == ZERO:
            value.zero_data = True
        elif tensor.data == RANDOM:
            value.random_data = True
        else:
            value.input_data_file = tensor.data


def _fill_version_policy(config: ModelConfig, versions: str) -> None:
    kind, _, count = versions.partition(":")
    if kind == "latest":
        config.version_policy.latest.num_versions = int(count or 1)
    elif versions == "all":
        config.version_policy.all.SetInParent()
    else:
        config.version_policy.specific.versions.extend(int(number) for number in versions.split(","))


def model_statistics(model: Model) -> ModelStatistics:
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
    stats.success.count, stats.success.ns = statistics.answered, statistics.success_ns
    stats.fail.count, stats.fail.ns = sum(statistics.failures.values()), statistics.failure_ns
    stats.queue.count, stats.queue.ns = answered, statistics.queue_ns
    stats.cache_hit.count, stats.cache_hit.ns = statistics.cache_hits, statistics.cache_hit_ns
    stats.cache_miss.count, stats.cache_miss.ns = statistics.cache_misses, statistics.cache_miss_ns
    _fill_phases(stats, statistics.requests)
    for rows, phases in sorted(statistics.per_batch.items()):
        _fill_phases(message.batch_stats.add(batch_size=rows), phases)
    return message


def _fill_queue_policy(policy: ModelQueuePolicy, config: BatchConfig | LevelConfig) -> None:
    policy.max_queue_size = config.max_queue_size
    policy.default_timeout_microseconds = config.default_timeout_us
    policy.timeout_action = policy.DELAY if config.timeout_action == "delay" else policy.REJECT
    policy.allow_timeout_override = config.allow_timeout_override


def _fill_phases(message: object, phases: Phases) -> None:
    for name in ("input", "infer", "output"):
        duration = getattr(message, f"compute_{name}")
        duration.count = phases.count
        duration.ns = getattr(phases, "compute_ns" if name == "infer" else f"{name}_ns")


def _data_type(tensor: TensorConfig) -> str:
    return dtypes.from_name(tensor.datatype).config_name
