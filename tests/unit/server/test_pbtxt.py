"""config.pbtxt: that every field of the protocol is decided about, and that what is decided happens."""

import logging

import pytest
from google.protobuf import text_format

from trtserve_engines.config import ConfigError
from trtserve_engines.options import build
from trtserve_protos import oip
from trtserve_protos.pool import POOL
from trtserve_server.config import InstanceGroupConfig, ModelConfig
from trtserve_server.pbtxt import values_from_json, values_from_message
from trtserve_server.pbtxt_fields import HONOURED, IGNORED, REFUSED, decision, leaf_paths, table

FIELDS = list(leaf_paths(oip.ModelConfig.DESCRIPTOR))


def message_of(text):
    return text_format.Parse(text, oip.ModelConfig(), descriptor_pool=POOL)


def read(text):
    return build(ModelConfig, values_from_message(message_of(text), "config.pbtxt"), "config.pbtxt")


def test_the_protocol_has_as_many_fields_as_we_think():
    assert len(FIELDS) == len(set(FIELDS)) > 100
    assert {
        "name",
        "ensemble_scheduling.step.input_map",
        "optimization.cuda.graph_spec.graph_lower_bound.batch_size",
    } <= {*FIELDS}


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_is_decided_about_once(path):
    assert decision(path) in ("honoured", "ignored", "refused")


def test_nothing_is_decided_about_that_is_no_field():
    known = {".".join(path.split(".")[:depth]) for path in FIELDS for depth in range(1, 9)}
    assert (HONOURED.keys() | IGNORED.keys() | REFUSED.keys()) - known == set()


def test_the_table_for_users_is_the_one_that_the_code_gives(root):
    """`python -m tests.support.triton_table` writes it again."""
    assert table(oip.ModelConfig.DESCRIPTOR) in (root / "docs" / "triton.md").read_text()


def value_text(field):
    """A value that sets a field of this kind, in text form."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        key = '"k"' if field.message_type.fields_by_name["key"].type == field.TYPE_STRING else "1"
        inner = "{ }" if value.message_type is not None else value_text(value)
        return f"{{ key: {key} value: {inner} }}" if value.message_type is None else f"{{ key: {key} value {inner} }}"
    if field.message_type is not None:
        return "{ }"
    if field.enum_type is not None:
        return max(field.enum_type.values, key=lambda value: value.number).name
    return {field.TYPE_STRING: '"x"', field.TYPE_BOOL: "true"}.get(field.type, "1")


def text_that_sets(path):
    """A configuration in which this one field is set."""
    descriptor, opened = oip.ModelConfig.DESCRIPTOR, []
    *parents, last = path.split(".")
    for name in parents:
        opened.append(name)
        descriptor = descriptor.fields_by_name[name].message_type
    field = descriptor.fields_by_name[last]
    value = value_text(field)
    inner = f"{last} {value}" if value.startswith("{") else f"{last}: {value}"
    return " { ".join([*opened, inner]) + " }" * len(opened)


@pytest.mark.parametrize("path", [path for path in FIELDS if decision(path) == "refused"])
def test_refused_fields_are_errors_that_name_them(path):
    with pytest.raises(ConfigError) as error:
        read(text_that_sets(path))
    assert str(error.value).partition(" cannot be served: ")[0] in [path, *REFUSED]


@pytest.mark.parametrize("path", [path for path in FIELDS if decision(path) == "ignored"])
def test_ignored_fields_are_named_in_the_log_once_and_change_nothing(path, caplog):
    text, source = text_that_sets(path), f"config of {path}"
    with caplog.at_level(logging.WARNING):
        values = [values_from_message(message_of(text), source) for _ in range(2)]
    (record,) = caplog.records
    assert f"{source}: these fields have no effect here: " in record.message
    assert any(f" {known} (" in record.message for known in IGNORED if f"{path}.".startswith(f"{known}."))
    # A parent that is there may set its own default, never more.
    parent = text.rpartition(path.rpartition(".")[2])[0] + "}" * (path.count("."))
    assert values[0] == values[1] == values_from_message(message_of(parent), "parent")


def test_what_is_reported_is_bounded_as_it_may_come_over_the_wire(caplog):
    message = oip.ModelConfig()
    message.parameters["p" * 1_000_000].string_value = "1"
    with caplog.at_level(logging.WARNING):
        values_from_message(message, "a load request")
    (record,) = caplog.records
    assert "parameters['pppp" in record.message
    assert len(record.message) < 3000


HONOURED_VALUES = {
    'name: "m"': ("name", "m"),
    'default_model_filename: "net.onnx"': ("filename", "net.onnx"),
    "max_batch_size: 7": ("max_batch_size", 7),
    "version_policy { latest { num_versions: 3 } }": ("versions", "latest:3"),
    "version_policy { all { } }": ("versions", "all"),
    "version_policy { specific { versions: [2, 5] } }": ("versions", "2,5"),
    "instance_group [ { count: 2 kind: KIND_CPU }, { } ]": (
        "instance_groups",
        (InstanceGroupConfig(2, "cpu"), InstanceGroupConfig(1)),
    ),
    "instance_group [ { kind: KIND_GPU }, { count: 3 gpus: [1, 0] } ]": (
        "instance_groups",
        (InstanceGroupConfig(1, "gpu"), InstanceGroupConfig(3, "gpu:1,0")),
    ),
    'model_warmup [ { name: "a" count: 3 }, { } ]': ("warmup_runs", 4),
    'model_warmup { inputs { key: "x" value { dims: 1 zero_data: true } } }': ("warmup_runs", 0),
}


@pytest.mark.parametrize(("text", "wanted"), HONOURED_VALUES.items())
def test_honoured_fields_arrive(text, wanted):
    field, value = wanted
    assert getattr(read(text), field) == value


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('parameters { key: "intra_op_thread_count" value { string_value: "3" } }', "intra_op_threads", 3),
        ('parameters { key: "inter_op_thread_count" value { string_value: "2" } }', "inter_op_threads", 2),
        ('parameters { key: "execution_mode" value { string_value: "1" } }', "execution_mode", "parallel"),
        ('parameters { key: "enable_mem_arena" value { string_value: "0" } }', "memory_arena", False),
        ('parameters { key: "enable_mem_pattern" value { string_value: "0" } }', "memory_pattern", False),
        ('parameters { key: "session.intra_op.allow_spinning" value { string_value: "1" } }', "spinning", True),
        ("optimization { graph { level: -1 } }", "graph_optimization_level", "basic"),
        ("optimization { graph { level: 1 } }", "graph_optimization_level", "extended"),
        ("optimization { graph { level: 2 } }", "graph_optimization_level", "disabled"),
        ("optimization { graph { } }", "graph_optimization_level", "all"),
    ],
)
def test_options_of_onnx_runtime_arrive(text, field, value):
    assert getattr(read(text).onnxruntime, field) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('parameters { key: "execution_mode" value { string_value: "2" } }', ["'execution_mode'", "'2'", "0 or 1"]),
        ('parameters { key: "intra_op_thread_count" value { string_value: "x" } }', ["'x'", "whole number"]),
        ('parameters { key: "intra_op_thread_count" value { string_value: "%s" } }' % ("9" * 5000), ["whole number"]),
        ("optimization { graph { level: 3 } }", ["level = 3", "-1, 0, 1, 2"]),
        ("instance_group { kind: KIND_CPU gpus: [0] }", ["KIND_CPU with gpus [0]"]),
        ('platform: "pytorch_libtorch"', ["'pytorch_libtorch'"]),
        ("max_batch_size: -1", ["max_batch_size = -1"]),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }", ["8", "max_batch_size = 4"]),
    ],
)
def test_wrong_values_are_errors_that_show_them(text, words):
    with pytest.raises(ConfigError) as error:
        read(text)
    for word in words:
        assert word in str(error.value)


def test_parameters_of_other_backends_are_named_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        read('parameters { key: "gpu_mem_limit" value { string_value: "1" } }')
    assert "parameters['gpu_mem_limit']" in caplog.text


@pytest.mark.parametrize("text", ["[]", "{", "", "3", '"{}"', "null", '{"max_batch_size": "x"}'])
def test_json_that_is_no_message_is_refused(text):
    with pytest.raises(ConfigError, match="not a ModelConfig in JSON"):
        values_from_json(text)


def test_json_is_the_same_message_in_another_form():
    values = values_from_json('{"maxBatchSize": 4, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}]}')
    assert values["max_batch_size"] == 4
    assert values["inputs"] == [{"name": "x", "datatype": "FP32", "dims": [3]}]
