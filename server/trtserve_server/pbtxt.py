"""Reads Triton's config.pbtxt into the mapping that a ModelConfig is built from.

Fields that do not apply to this server are named once in the log; fields that it would have to honour to give right
answers, and cannot, are errors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from trtserve_engines.config import ConfigError
from trtserve_protos import dtypes, oip
from trtserve_protos.pool import POOL

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelConfig as ModelConfigMessage

log = logging.getLogger(__name__)

_HONOURED = frozenset(
    [
        "name",
        "platform",
        "backend",
        "max_batch_size",
        "default_model_filename",
        "version_policy.latest.num_versions",
        "version_policy.all",
        "version_policy.specific.versions",
        "input.name",
        "input.data_type",
        "input.dims",
        "output.name",
        "output.data_type",
        "output.dims",
        "output.label_filename",
        "instance_group.count",
        "instance_group.gpus",
        "instance_group.kind",
        "instance_group.name",
        "dynamic_batching.preferred_batch_size",
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.default_queue_policy.max_queue_size",
        "model_warmup.count",
    ]
)
"""Paths of the fields that have an effect; a field that holds others counts where all of these do."""

_REFUSED = {
    "sequence_batching": "models with state between requests are not supported",
    "ensemble_scheduling": "ensembles are not supported",
    "batch_input": "ragged batches are not supported",
    "batch_output": "ragged batches are not supported",
}
_ONNX_BACKENDS = ("", "onnxruntime", "onnxruntime_onnx", "tensorrt", "tensorrt_plan")


def read_pbtxt(path: Path) -> dict[str, Any]:
    """The values that the file sets, by ModelConfig's names. Raises ConfigError with the line of a mistake."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    message = oip.ModelConfig()
    try:
        text_format.Parse(text, message, descriptor_pool=POOL)
    except text_format.ParseError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return values_from_message(message, str(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def values_from_json(text: str) -> dict[str, Any]:
    """The values that a ModelConfig message in JSON sets, by our names. Raises ConfigError."""
    message = oip.ModelConfig()
    try:
        json_format.Parse(text, message, descriptor_pool=POOL)
    except json_format.ParseError as error:
        raise ConfigError(f"it is not a ModelConfig in JSON: {error}") from None
    return values_from_message(message, "configuration of a load request")


def values_from_message(message: ModelConfigMessage, source: str) -> dict[str, Any]:
    """The values that a ModelConfig message sets, by our names. Raises ConfigError."""
    _check_fields(message, source)
    # 0 cannot be told from absent: as at Triton, a file that names the inputs means it, any other is completed.
    complete = bool(message.max_batch_size or message.input)
    values: dict[str, Any] = {"max_batch_size": message.max_batch_size} if complete else {}
    if message.name:
        values["name"] = message.name
    if message.default_model_filename:
        values["filename"] = message.default_model_filename
    if message.HasField("version_policy"):
        values["versions"] = _versions(message)
    if message.input:
        values["inputs"] = [_tensor(tensor) for tensor in message.input]
    if message.output:
        values["outputs"] = [_tensor(tensor) | {"label_filename": tensor.label_filename} for tensor in message.output]
    if message.instance_group:
        values["instance_groups"] = [
            {"count": max(1, group.count), "device": _group_device(group)} for group in message.instance_group
        ]
    if message.HasField("dynamic_batching"):
        values["batching"] = _batching(message)
    if message.model_warmup:
        values["warmup_runs"] = sum(warmup.count or 1 for warmup in message.model_warmup)
    return values


def _check_fields(message: ModelConfigMessage, source: str) -> None:
    present = [descriptor.name for descriptor, _ in message.ListFields()]
    for name in present:
        if name in _REFUSED:
            raise ConfigError(f"{name} cannot be served: {_REFUSED[name]}")
    for name in ("platform", "backend"):
        if getattr(message, name) not in _ONNX_BACKENDS:
            raise ConfigError(f"{name}: {getattr(message, name)!r} given; only ONNX models can be served")
    ignored = sorted({path for path in _set_fields(message) if path not in _HONOURED})
    if ignored:
        log.warning("%s: these fields have no effect here: %s", source, ", ".join(ignored))


def _set_fields(message: Message, prefix: str = "") -> Iterator[str]:
    """The paths of the fields that are set: down to the leaves where something below a field is honoured."""
    for descriptor, value in message.ListFields():
        path = f"{prefix}{descriptor.name}"
        if descriptor.message_type is None or not any(known.startswith(f"{path}.") for known in _HONOURED):
            yield path
        else:
            children = [value] if isinstance(value, Message) else value
            for child in children:
                yield from _set_fields(child, f"{path}.")


def _versions(message: ModelConfigMessage) -> str:
    policy = message.version_policy
    if policy.HasField("all"):
        return "all"
    if policy.HasField("specific"):
        return ",".join(map(str, policy.specific.versions))
    return f"latest:{policy.latest.num_versions or 1}"


def _tensor(tensor: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"name": tensor.name}
    if tensor.data_type:
        values["datatype"] = _datatype(tensor)
    if tensor.dims:
        values["dims"] = list(tensor.dims)
    if tensor.HasField("reshape"):
        raise ConfigError(f"{tensor.name!r}: reshape is not supported; export the model with the shape to be served")
    return values


def _group_device(group: Any) -> str:
    """The device of an instance group; "" where it leaves that open."""
    if group.kind == group.KIND_CPU:
        if group.gpus:
            raise ConfigError(f"instance_group: KIND_CPU with gpus {list(group.gpus)}; leave one of them out")
        return "cpu"
    if group.gpus:
        return f"gpu:{','.join(map(str, group.gpus))}"
    return "gpu" if group.kind == group.KIND_GPU else ""


def _datatype(tensor: Any) -> str:
    for name, number in oip.DATA_TYPE_NUMBERS.items():
        if number == tensor.data_type:
            return dtypes.from_config_name(name).name
    raise ConfigError(f"{tensor.name!r}: data_type {tensor.data_type} is unknown; wanted is a name such as TYPE_FP32")


def _batching(message: ModelConfigMessage) -> dict[str, Any]:
    batching = message.dynamic_batching
    values: dict[str, Any] = {
        "preferred_batch_sizes": list(batching.preferred_batch_size),
        "max_queue_delay_us": batching.max_queue_delay_microseconds,
    }
    if batching.default_queue_policy.max_queue_size:
        values["max_queue_size"] = batching.default_queue_policy.max_queue_size
    return values
