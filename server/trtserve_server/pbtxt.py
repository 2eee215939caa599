"""Reads Triton's config.pbtxt into the mapping that a ModelConfig is built from.

Fields that do not apply to this server are named once in the log; fields that it would have to honour to give right
answers, and cannot, are errors. `pbtxt_fields` says which are which.
"""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, text_format

from trtserve_engines.config import ConfigError, OnnxRuntimeOptions
from trtserve_engines.regular_file import read_regular
from trtserve_protos import dtypes, oip
from trtserve_protos.pool import POOL
from trtserve_server.config import RANDOM, ZERO
from trtserve_server.pbtxt_fields import IGNORED, REFUSED, decision, set_paths

if TYPE_CHECKING:
    from trtserve_protos.oip import ModelConfig as ModelConfigMessage

log = logging.getLogger(__name__)

_PARAMETERS = {
    "intra_op_thread_count": "intra_op_threads",
    "inter_op_thread_count": "inter_op_threads",
    "execution_mode": "execution_mode",
    "enable_mem_arena": "memory_arena",
    "enable_mem_pattern": "memory_pattern",
    "session.intra_op.allow_spinning": "spinning",
}
"""Triton's names of ONNX Runtime's options, and ours."""

BATCHING_REASON = "batching_reason"
"""The parameter that tells in an answer why a model is batched or not; read, it says nothing."""

_LONGEST_REPORT = 2000
"""Characters of fields that have no effect: a configuration may come over the wire, and what is reported is kept."""

_COUNTS = ("intra_op_thread_count", "inter_op_thread_count")
_MOST_DIGITS = 9  # what fits the 32 bits that ONNX Runtime has for them

GRAPH_LEVELS = {-1: "basic", 0: "all", 1: "extended", 2: "disabled"}
"""What Triton's ONNX Runtime backend means by optimization.graph.level."""

EXECUTION_MODES = {"0": "sequential", "1": "parallel"}

ENSEMBLE = "ensemble"
"""Triton's name of the platform of ensembles."""

_ONNX_BACKENDS = ("", "onnxruntime", "onnxruntime_onnx", "tensorrt", "tensorrt_plan")


def read_pbtxt(path: Path) -> dict[str, Any]:
    """The values that the file sets, by ModelConfig's names. Raises ConfigError with the line of a mistake."""
    try:
        text = read_regular(path).decode()
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
        # An empty list passes for an empty message, and older versions of protobuf raise what comes for other values.
        if not isinstance(json.loads(text), dict):
            raise json_format.ParseError("wanted is an object, {...}")
        json_format.Parse(text, message, descriptor_pool=POOL)
    except (ValueError, json_format.ParseError) as error:
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
            {"count": group.count or 1, "device": _group_device(group)} for group in message.instance_group
        ]
    if message.HasField("dynamic_batching"):
        values["batching"] = _batching(message)
        values["levels"] = [
            {"level": level, **_queue_policy(policy)}
            for level, policy in sorted(message.dynamic_batching.priority_queue_policy.items())
        ]
    if message.HasField("ensemble_scheduling"):
        values["ensemble"] = [_step(step) for step in message.ensemble_scheduling.step]
    if message.HasField("response_cache"):
        values["response_cache"] = message.response_cache.enable
    options = _onnxruntime(message)
    if options:
        values["onnxruntime"] = options
    if message.model_warmup:
        values["warmup"] = [_warmup(warmup) for warmup in message.model_warmup if warmup.inputs]
        # An entry without inputs asks for made-up ones.
        values["warmup_runs"] = sum(warmup.count or 1 for warmup in message.model_warmup if not warmup.inputs)
    return values


def _check_fields(message: ModelConfigMessage, source: str) -> None:
    paths = sorted(set(set_paths(message)))
    for path in paths:
        if decision(path) == "refused":
            raise ConfigError(f"{path} cannot be served: {REFUSED[path]}")
    is_ensemble = message.HasField("ensemble_scheduling")
    for name in ("platform", "backend"):
        given = getattr(message, name)
        if is_ensemble and given not in ("", ENSEMBLE):
            raise ConfigError(f"{name}: {given!r} given; with ensemble_scheduling it is {ENSEMBLE!r}")
        if not is_ensemble and given == ENSEMBLE:
            raise ConfigError(f"{name}: {given!r} given without ensemble_scheduling, which says what it is made of")
        if given not in (*_ONNX_BACKENDS, ENSEMBLE):
            raise ConfigError(f"{name}: {given!r} given; only ONNX models and ensembles of them can be served")
    if is_ensemble and not message.ensemble_scheduling.step:
        raise ConfigError("ensemble_scheduling has no steps; wanted is a step for each model that is to be run")
    ignored = [f"{path} ({IGNORED[path]})" for path in paths if decision(path) == "ignored"]
    ignored += [
        f"parameters[{key!r}]" for key in sorted(message.parameters) if key not in (*_PARAMETERS, BATCHING_REASON)
    ]
    if ignored:
        _report_ignored(source, ", ".join(ignored)[:_LONGEST_REPORT])


@lru_cache(maxsize=4096)  # a file that is read again and again is reported once
def _report_ignored(source: str, fields: str) -> None:
    log.warning("%s: these fields have no effect here: %s", source, fields)


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
        values["datatype"] = _datatype_name(tensor.data_type, tensor.name)
    if tensor.dims:
        values["dims"] = list(tensor.dims)
    if tensor.HasField("reshape"):
        values["reshape"] = list(tensor.reshape.shape)
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


def _datatype_name(given: int, tensor: str) -> str:
    for name, number in oip.DATA_TYPE_NUMBERS.items():
        if number == given:
            return dtypes.from_config_name(name).name
    raise ConfigError(f"{tensor!r}: data_type {given} is unknown; wanted is a name such as TYPE_FP32")


def _warmup(warmup: Any) -> dict[str, Any]:
    return {
        "name": warmup.name,
        "batch_size": warmup.batch_size,
        "count": warmup.count or 1,
        "inputs": [_warmup_input(name, tensor) for name, tensor in sorted(warmup.inputs.items())],
    }


def _warmup_input(name: str, tensor: Any) -> dict[str, Any]:
    kind = tensor.WhichOneof("input_data_type")
    data = {"zero_data": ZERO, "random_data": RANDOM}.get(kind, tensor.input_data_file)
    if not data:
        raise ConfigError(f"model_warmup: input {name!r} has no data; give zero_data, random_data or input_data_file")
    datatype = _datatype_name(tensor.data_type, name) if tensor.data_type else ""
    return {"name": name, "datatype": datatype, "data": data} | ({"dims": list(tensor.dims)} if tensor.dims else {})


def _step(step: Any) -> dict[str, Any]:
    return {
        "model": step.model_name,
        "version": max(step.model_version, 0),  # -1 = the newest
        "inputs": dict(step.input_map),
        "outputs": dict(step.output_map),
    }


def _batching(message: ModelConfigMessage) -> dict[str, Any]:
    batching = message.dynamic_batching
    values: dict[str, Any] = {
        "preferred_batch_sizes": list(batching.preferred_batch_size),
        "max_queue_delay_us": batching.max_queue_delay_microseconds,
        "preserve_ordering": batching.preserve_ordering,
    }
    if batching.priority_levels:
        values["priority_levels"] = batching.priority_levels
        values["default_priority_level"] = batching.default_priority_level
    if batching.HasField("default_queue_policy"):
        values |= _queue_policy(batching.default_queue_policy)
    return values


def _queue_policy(policy: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "default_timeout_us": policy.default_timeout_microseconds,
        "timeout_action": "delay" if policy.timeout_action == policy.DELAY else "reject",
        "allow_timeout_override": policy.allow_timeout_override,
    }
    if policy.max_queue_size:
        values["max_queue_size"] = policy.max_queue_size
    return values


def _onnxruntime(message: ModelConfigMessage) -> dict[str, Any]:
    values = {
        ours: _parameter(theirs, message.parameters[theirs].string_value)
        for theirs, ours in _PARAMETERS.items()
        if theirs in message.parameters
    }
    if message.optimization.HasField("graph"):
        level = message.optimization.graph.level
        if level not in GRAPH_LEVELS:
            raise ConfigError(
                f"optimization.graph.level = {level}; wanted is one of {', '.join(map(str, GRAPH_LEVELS))}"
            )
        values["graph_optimization_level"] = GRAPH_LEVELS[level]
    return values


def _parameter(name: str, text: str) -> int | bool | str:
    fits = text.isdecimal() and len(text) <= _MOST_DIGITS if name in _COUNTS else text in ("0", "1")
    if not fits:
        wanted = f"a whole number of at most {_MOST_DIGITS} digits" if name in _COUNTS else "0 or 1"
        raise ConfigError(f"parameters[{name!r}] = {text[:40]!r}; wanted is {wanted}")
    if name == "execution_mode":
        return EXECUTION_MODES[text]
    return int(text) if name in _COUNTS else text == "1"


def parameters_of(options: OnnxRuntimeOptions) -> dict[str, str]:
    """The options as Triton's parameters: the other way round."""
    modes = {mode: number for number, mode in EXECUTION_MODES.items()}
    values = {theirs: getattr(options, ours) for theirs, ours in _PARAMETERS.items()}
    return {name: modes[value] if isinstance(value, str) else str(int(value)) for name, value in values.items()}
