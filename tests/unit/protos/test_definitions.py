"""The wire definitions in the private pool against the published protocol, and the pool's privacy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from trtserve_protos import health, oip
from trtserve_protos.pool import POOL, message_class

REFERENCE = Path(__file__).with_name("inference_reference.txt").read_text()
HEALTH_REFERENCE = """
rpc Check: HealthCheckRequest -> HealthCheckResponse
rpc List: HealthListRequest -> HealthListResponse
rpc Watch: HealthCheckRequest -> stream HealthCheckResponse
message HealthCheckRequest: 1 service string
message HealthCheckResponse: 1 status ServingStatus
enum HealthCheckResponse.ServingStatus: UNKNOWN=0, SERVING=1, NOT_SERVING=2, SERVICE_UNKNOWN=3
message HealthListRequest:
message HealthListResponse: 1 statuses map<string,HealthCheckResponse>
"""

SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


def facts(reference, kind):
    """The lines of one kind, as a dict from the name to what stands behind it."""
    return dict(re.findall(rf"^{kind} ([\w.]+): ?(.*)$", reference, re.MULTILINE))


def defined(*file_names):
    """The same facts, read from the descriptors: messages, enums, calls."""
    messages, enums, calls = {}, {}, {}
    for file_name in file_names:
        file = FileDescriptorProto()
        POOL.FindFileByName(file_name).CopyToProto(file)
        assert file.syntax == "proto3"
        prefix = f".{file.package}."
        for message in file.message_type:
            describe_message(message, "", prefix, messages, enums)
        enums |= {enum.name: values(enum) for enum in file.enum_type}
        for service in file.service:
            calls |= {method.name: call(method, prefix) for method in service.method}
    return messages, enums, calls


def describe_message(message, scope, prefix, messages, enums):
    name = scope + message.name
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    messages[name] = ", ".join(
        describe_field(field, message, entries, prefix, name) for field in sorted(message.field, key=lambda f: f.number)
    )
    enums |= {f"{name}.{enum.name}": values(enum) for enum in message.enum_type}
    for nested in message.nested_type:
        if nested.name not in entries:
            describe_message(nested, f"{name}.", prefix, messages, enums)


def describe_field(field, message, entries, prefix, scope):
    assert not field.proto3_optional
    text = f"{field.number} {field.name} {type_of(field, entries, prefix, scope)}"
    return text + f" @{message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else text


def type_of(field, entries, prefix, scope):
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map<{type_of(key, {}, prefix, scope)},{type_of(value, {}, prefix, scope)}>"
    name = SCALARS.get(field.type) or shortest(field.type_name.removeprefix(prefix), scope)
    return name + "[]" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def shortest(type_name, scope):
    """The name as it is written inside `scope`: without the parts that both have in common."""
    owner, _, name = type_name.rpartition(".")
    return name if not owner or f"{scope}.".startswith(f"{owner}.") else type_name


def values(enum):
    return ", ".join(f"{value.name}={value.number}" for value in enum.value)


def call(method, prefix):
    sides = (method.client_streaming, method.input_type), (method.server_streaming, method.output_type)
    return " -> ".join("stream " * streams + name.removeprefix(prefix) for streams, name in sides)


@pytest.mark.parametrize("kind", ["message", "enum", "rpc"])
@pytest.mark.parametrize(
    ("reference", "files"),
    [
        (REFERENCE, ("oip/open_inference.proto", "oip/model_config.proto")),
        (HEALTH_REFERENCE, ("health/health.proto",)),
    ],
    ids=["inference", "grpc.health.v1"],
)
def test_definitions_are_those_of_the_protocol(reference, files, kind):
    wanted = facts(reference, kind)
    assert wanted
    given = dict(zip(("message", "enum", "rpc"), defined(*files), strict=True))[kind]
    assert given == wanted


@pytest.mark.parametrize(
    ("module", "reference", "package"), [(oip, REFERENCE, "inference"), (health, HEALTH_REFERENCE, "grpc.health.v1")]
)
def test_method_table_holds_paths_messages_and_streaming_sides(module, reference, package):
    wanted = facts(reference, "rpc")
    assert set(module.METHODS) == set(wanted)
    for name, method in module.METHODS.items():
        request, response = wanted[name].split(" -> ")
        assert method.path == f"/{module.SERVICE}/{name}"
        assert (method.client_streams, method.server_streams) == ("stream" in request, "stream" in response)
        assert method.request_class is message_class(f"{package}.{request.removeprefix('stream ')}")
        assert method.response_class is message_class(f"{package}.{response.removeprefix('stream ')}")


def test_every_message_of_the_dialect_is_an_attribute_of_its_module():
    for name in facts(REFERENCE, "message"):
        if "." not in name:
            assert getattr(oip, name).DESCRIPTOR.full_name == f"inference.{name}"
            assert getattr(oip, name) is getattr(oip, name)


def test_unknown_message_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'trtserve_protos.oip' has no attribute 'ModelOutfer'"):
        oip.ModelOutfer  # noqa: B018


def test_configuration_data_types_have_the_numbers_of_the_protocol():
    wanted = re.findall(r"(TYPE_\w+)=(\d+)", facts(REFERENCE, "enum")["DataType"])
    assert {name: int(number) for name, number in wanted} == oip.DATA_TYPE_NUMBERS


def run_python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_nothing_registers_in_the_default_pool():
    printed = run_python(
        "import trtserve_protos.oip, trtserve_protos.health, trtserve_protos.wire, trtserve_protos.tensors\n"
        "trtserve_protos.oip.ModelInferRequest()\n"
        "from google.protobuf import descriptor_pool\n"
        "for name in ('inference.ModelInferRequest', 'inference.DataType', 'grpc.health.v1.HealthCheckRequest'):\n"
        "    try:\n"
        "        descriptor_pool.Default().FindFileContainingSymbol(name)\n"
        "    except KeyError:\n"
        "        print('absent')"
    )
    assert printed.split() == ["absent"] * 3


def test_another_package_may_define_the_same_protocol_in_the_default_pool():
    printed = run_python(
        "from google.protobuf import descriptor_pb2, descriptor_pool, message_factory\n"
        "file = descriptor_pb2.FileDescriptorProto(name='theirs.proto', package='inference')\n"
        "file.message_type.add(name='ModelInferRequest').field.add(name='theirs', number=1, type=9, label=1)\n"
        "descriptor_pool.Default().AddSerializedFile(file.SerializeToString())\n"
        "from trtserve_protos import oip\n"
        "theirs = descriptor_pool.Default().FindMessageTypeByName('inference.ModelInferRequest')\n"
        "message = message_factory.GetMessageClass(theirs)(theirs='m')\n"
        "print(oip.ModelInferRequest.FromString(message.SerializeToString()).model_name)"
    )
    assert printed.split() == ["m"]
