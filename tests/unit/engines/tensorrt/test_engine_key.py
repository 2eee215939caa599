"""The key of an engine: one digest per set of fields, and differences in words."""

import math

import pytest

from trtserve_engines.tensorrt.engine_key import EngineKey, canonical_json, changes

FIELDS = {
    "schema": 1,
    "model": "a" * 64,
    "build": {"tf32": True, "profiles": ["x=1:8:32"], "workspace_bytes": 0},
    "gpu": {"name": "NVIDIA L4", "memory_bytes": 1 << 34, "driver_version": [13, 0]},
    "tensorrt": "10.16.1.11",
}


def test_the_digest_does_not_depend_on_the_order_of_fields():
    turned = {name: FIELDS[name] for name in reversed(FIELDS)}
    assert EngineKey(turned).digest == EngineKey(FIELDS).digest


def test_the_digest_is_the_same_in_every_version_of_this_program():
    """A change here means that every cache in the world is built again: raise SCHEMA instead, if that is meant."""
    assert EngineKey(FIELDS).digest == "9c4d63b94cf9d2b54690555578a5073eed6126b5099a48826adc2ba03b05c8be"


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("model", "b" * 64, "ONNX model changed: aaaaaaaaaaaa... -> bbbbbbbbbbbb..."),
        ("tensorrt", "11.4.0.106", "TensorRT changed: 10.16.1.11 -> 11.4.0.106"),
        ("gpu.driver_version", [13, 1], "CUDA driver changed: 13.0 -> 13.1"),
        ("gpu.name", "NVIDIA A10", "GPU changed: NVIDIA L4 -> NVIDIA A10"),
        ("gpu.memory_bytes", 1 << 33, "GPU memory in bytes changed: 17179869184 -> 8589934592"),
        ("build.tf32", False, "build option tf32 changed: true -> false"),
        ("build.profiles", ["x=1:8:64"], 'build option profiles changed: ["x=1:8:32"] -> ["x=1:8:64"]'),
        ("schema", 2, "trtserve's builder changed: 1 -> 2"),
        ("plugins.libx.so", "c" * 64, "plugin libx.so changed: none -> cccccccccccc..."),
        ("recipe.tool", "ModelOpt 0.47", "tool of the precision recipe changed: none -> ModelOpt 0.47"),
        ("recipe.threshold", 3, "precision recipe's threshold changed: none -> 3"),
    ],
)
def test_every_field_counts_and_is_named(path, value, text):
    group, _, name = path.partition(".")
    changed = {**FIELDS, group: {**FIELDS.get(group, {}), name: value} if name else value}
    assert EngineKey(changed).digest != EngineKey(FIELDS).digest
    assert [str(change) for change in changes(FIELDS, changed)] == [text]


def test_what_came_back_from_json_is_the_same():
    assert changes({"a": ["x"]}, {"a": ("x",)}) == ()
    assert canonical_json({"a": ["x"]}) == canonical_json({"a": ("x",)})


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": math.nan})
