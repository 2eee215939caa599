"""The simulated tensorrt shows nothing that the real bindings of its generation do not have, and calls it the same."""

import inspect
import json
import re
from pathlib import Path

import pytest

from tests.simulation.compact_manifest import FOLDER, compact

ROOT = Path(__file__).resolve().parents[4]
FULL = ROOT.parent / "shared" / "tensorrt"


def manifest(generation):
    return json.loads((FOLDER / f"api-{generation}.json").read_text())


def public(cls):
    """The class's own public members, and those of simulated bases that the real class does not share."""
    return {name: member for name, member in vars(cls).items() if not name.startswith("_")}


def parameters(signature):
    """Names in a signature such as "parse(self: OnnxParser, model: Buffer, path: str = None) -> bool"."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    names = [re.match(r"\s*(\w+)", part)[1] for part in re.split(r",(?![^\[<(]*[\]>)])", inside) if part.strip()]
    return [name for name in names if name != "self"]


def is_enum(entry):
    return bool(entry) and all(isinstance(value, int) for value in entry.values())


def classes(trt):
    return {name: value for name, value in vars(trt).items() if inspect.isclass(value) and name in trt.__all__}


def test_the_version_is_the_real_one(trt, generation):
    assert trt.__version__ == manifest(generation)["version"]


def test_every_class_is_a_real_one(trt, generation):
    assert set(classes(trt)) <= set(manifest(generation)["classes"])


def test_enums_have_the_real_names_and_numbers(trt, generation):
    real = {name: entry for name, entry in manifest(generation)["classes"].items() if is_enum(entry)}
    for name, cls in classes(trt).items():
        if name in real:
            assert {member: int(value) for member, value in cls.__members__.items()} == real.pop(name)
    assert set(real) <= {"LayerType", "ILogger.Severity"}
    assert {name: int(value) for name, value in trt.ILogger.Severity.__members__.items()} == real["ILogger.Severity"]


def test_every_member_is_a_real_one_with_its_parameters(trt, generation):
    real = manifest(generation)["classes"]
    for name, cls in classes(trt).items():
        if is_enum(real[name]) or name == "ILogger":
            continue
        for member_name, member in public(cls).items():
            assert member_name in real[name], f"{name}.{member_name}"
            assert_same(f"{name}.{member_name}", member, real[name][member_name])


def assert_same(where, member, real):
    if isinstance(member, property):
        assert str(real).startswith("property"), where
        assert member.fset is None or real.endswith(" rw"), f"{where} can be set here, not in the real one"
    elif callable(member):
        names = [name for name in inspect.signature(member).parameters if name != "self"]
        assert names in [parameters(signature) for signature in real], f"{where}{names}: {real}"


def test_functions_and_constants_of_the_module_are_real_ones(trt, generation):
    real = manifest(generation)["classes"]["<module>"]
    for name, value in real.items():
        simulated = getattr(trt, name, None)
        if isinstance(value, str) and value.startswith("const DataType"):
            assert simulated == getattr(trt.DataType, value.rpartition(".")[2]), name
        if inspect.isfunction(simulated):
            assert list(inspect.signature(simulated).parameters) in [parameters(text) for text in value], name


def test_what_only_the_other_generation_has_is_absent(trt, generation):
    assert hasattr(trt.BuilderFlag, "FP16") == (generation == "10.16")
    assert hasattr(trt.IBuilderConfig, "build_route") == (generation == "11.4")
    assert int(trt.BuilderFlag.VERSION_COMPATIBLE) == (13 if generation == "10.16" else 12)


def test_an_unknown_attribute_cannot_be_set(trt):
    config = trt.Builder(trt.Logger()).create_builder_config()
    with pytest.raises(AttributeError, match="no attribute 'max_workspace_size'"):
        config.max_workspace_size = 1


@pytest.mark.skipif(not FULL.is_dir(), reason="the full manifests are not beside this clone")
def test_the_manifests_are_part_of_the_full_ones(generation):
    assert compact(json.loads((FULL / f"api-{generation}.json").read_text())) == manifest(generation)
