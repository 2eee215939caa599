"""Every field of Triton's ModelConfig and what becomes of it: honoured, ignored with a line in the log, or refused.

docs/triton.md shows the same as a table; a test keeps the three in step: the .proto, this file and the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HONOURED = {
    "name": "must be the folder's",
    "platform": "onnxruntime_onnx or tensorrt_plan: what is served is an ONNX file in any case; or ensemble",
    "backend": "onnxruntime or tensorrt: likewise",
    "max_batch_size": "0 with inputs named = never batch; 0 without = decided by trying",
    "default_model_filename": "the file in each version's folder",
    "version_policy.latest.num_versions": "the newest versions by number",
    "version_policy.all": "every version",
    "version_policy.specific.versions": "these versions; a missing one is an error",
    "input.name": "must be in the graph",
    "input.data_type": "must be the graph's",
    "input.dims": "must agree with the graph; a size where the graph has none is held to",
    "input.reshape.shape": "the graph's shape, of as many elements as dims, which requests have",
    "output.name": "must be in the graph",
    "output.data_type": "must be the graph's",
    "output.dims": "must agree with the graph",
    "output.reshape.shape": "the graph's shape, of as many elements as dims, which answers have",
    "output.label_filename": "labels for the classification extension, one per line",
    "instance_group.count": "batches that may run at the same time, on each GPU named; groups are added up",
    "instance_group.gpus": "the numbers of the GPUs; none = every GPU",
    "instance_group.kind": "KIND_CPU, KIND_GPU, or KIND_AUTO and KIND_MODEL for the server's choice",
    "dynamic_batching.preferred_batch_size": "sizes that are cut as soon as they are reached",
    "dynamic_batching.max_queue_delay_microseconds": "how long an idle instance waits for more rows",
    "dynamic_batching.preserve_ordering": "answers on one stream come in the order of its requests",
    "dynamic_batching.default_queue_policy.max_queue_size": "requests that may wait; 0 = the server's number",
    "dynamic_batching.default_queue_policy.timeout_action": "what becomes of a request that has waited for too long",
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": "how long a request may wait for its run",
    "dynamic_batching.default_queue_policy.allow_timeout_override": "a request's own timeout holds where it is shorter",
    "dynamic_batching.priority_levels": "how many priorities there are",
    "dynamic_batching.default_priority_level": "the priority of requests that name none",
    "dynamic_batching.priority_queue_policy": "the same policies for single priorities",
    "optimization.graph.level": "ONNX Runtime's: -1 basic, 0 all, 1 extended, 2 disabled",
    "parameters": "ONNX Runtime's: intra_op_thread_count, inter_op_thread_count, execution_mode, enable_mem_arena,"
    " enable_mem_pattern, session.intra_op.allow_spinning; others are named in the log",
    "model_warmup.name": "what the request is called where it fails",
    "model_warmup.batch_size": "its rows",
    "model_warmup.count": "how often it is run, per instance, before the model is ready",
    "model_warmup.inputs": "zero_data, random_data or a file in the folder warmup; none = made-up inputs, a row and the"
    " largest batch",
    "ensemble_scheduling.step.model_name": "the model of the step, which may be an ensemble itself",
    "ensemble_scheduling.step.model_version": "-1 or 0 = the newest that serves",
    "ensemble_scheduling.step.input_map": "every input of the model to a tensor of the ensemble",
    "ensemble_scheduling.step.output_map": "outputs of the model to tensors of the ensemble",
    "ensemble_scheduling.max_inflight_requests": "holds for any number: a step runs once for a request, never ahead",
    "response_cache.enable": "answers to repeated requests come from the server's cache (response_cache_bytes)",
}
"""The fields that have an effect, and which."""

REFUSED = {
    "sequence_batching": "models with state between requests are not supported",
    "batch_input": "ragged batches are not supported",
    "batch_output": "ragged batches are not supported",
    "input.optional": "every input has to be sent; one with a default in the graph is a weight",
    "model_operations": "libraries of custom operators are not loaded",
    "model_transaction_policy.decoupled": "an ONNX model gives one answer to one request",
    "model_repository_agents": "agents, which may check what is loaded, are not run",
}
"""What would change answers or leave a check undone if it were ignored, and why it cannot be honoured."""

IGNORED = {
    "cc_model_filenames": "one ONNX file serves every GPU",
    "metric_tags": "metrics carry the model and its version",
    "runtime": "each backend is part of the server",
    "ensemble_scheduling.step.model_namespace": "model names are unique over all repositories",
    "model_metrics": "histograms are always there, with fixed buckets",
    "input.format": "dims say all that is needed",
    "input.is_shape_tensor": "the graph says it",
    "output.is_shape_tensor": "the graph says it",
    "input.is_non_linear_format_io": "tensors are linear",
    "output.is_non_linear_format_io": "tensors are linear",
    "input.allow_ragged_batch": "requests of different shapes are accepted and never share a batch",
    "instance_group.name": "instances are called after their model",
    "instance_group.profile": "profiles are chosen by shape",
    "instance_group.rate_limiter": "instances are not limited",
    "instance_group.passive": "every instance works",
    "instance_group.secondary_devices": "there is one device per instance",
    "instance_group.host_policy": "threads are not bound to cores",
    "optimization.priority": "models share the device evenly",
    "optimization.cuda": "graphs are captured where they can be; see cuda_graphs in model.toml's tensorrt",
    "optimization.execution_accelerators": "`backend` chooses; its options are those of tensorrt in model.toml",
    "optimization.input_pinned_memory": "memory is pinned where a GPU is used",
    "optimization.output_pinned_memory": "memory is pinned where a GPU is used",
    "optimization.gather_kernel_buffer_threshold": "rows are gathered on the host",
    "optimization.eager_batching": "a batch is gathered while the one before runs, always",
}
"""What does not apply here and may be left out without a wrong answer, and why."""


def decision(path: str) -> str:
    """What becomes of a field: "honoured", "ignored" or "refused". KeyError where nobody has decided."""
    decided = {"honoured": HONOURED, "ignored": IGNORED, "refused": REFUSED}
    found = [name for name, paths in decided.items() for known in paths if f"{path}.".startswith(f"{known}.")]
    if len(found) != 1:
        raise KeyError(f"{path}: {found}")
    return found[0]


def leaf_paths(descriptor: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all fields of a message that hold no other message; maps are taken as a whole."""
    for field in descriptor.fields:
        path = f"{prefix}{field.name}"
        message = field.message_type
        if message is None or message.GetOptions().map_entry or not message.fields:
            yield path
        else:
            yield from leaf_paths(message, f"{path}.")


def set_paths(message: Any, prefix: str = "") -> Iterator[str]:
    """The paths of the fields that are set: down to where it is decided what becomes of them."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        nested = field.message_type
        if nested is None or nested.GetOptions().map_entry or path in HONOURED or path in IGNORED or path in REFUSED:
            yield path
            continue
        for child in [value] if hasattr(value, "ListFields") else value:
            yield from set_paths(child, f"{path}.")


def table(descriptor: Any) -> str:
    """Every field of the message as a row of a Markdown table: path, decision, reason."""
    reasons = {**HONOURED, **IGNORED, **REFUSED}
    rows = ["| field | here | how, or why not |", "|---|---|---|"]
    for path in leaf_paths(descriptor):
        known = next(known for known in reasons if f"{path}.".startswith(f"{known}."))
        rows.append(f"| `{path}` | {decision(path)} | {reasons[known]} |")
    return "\n".join(rows)
