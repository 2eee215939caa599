"""What is found on disk: layouts, versions, configurations, and what is wrong with them."""

import logging
import os
from pathlib import Path

import pytest

from trtserve_engines.config import ConfigError
from trtserve_server.config import InstanceGroupConfig, ServerConfig
from trtserve_server.models.repository import choose_versions, find_models


@pytest.fixture
def repository(tmp_path):
    """Makes files below a repository: path to text."""

    def make(**files):
        for path, text in files.items():
            file = tmp_path / "repository" / path.replace("__", "/").replace("_DOT_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return str(tmp_path / "repository")

    return make


def find(*repositories, **options):
    return find_models(ServerConfig(model_repository=repositories, **options))


def test_versions_latest_by_default_and_ordered_as_numbers(repository):
    path = repository(m__2__model_DOT_onnx="", m__10__model_DOT_onnx="")
    assert [(found.name, found.version) for found in find(path)] == [("m", "10")]


def test_a_single_file_serves_under_its_stem_as_version_1(tmp_path):
    file = tmp_path / "resnet.onnx"
    file.touch()
    (found,) = find_models(ServerConfig(model=(str(file),)))
    assert (found.name, found.version, found.path, found.problem) == ("resnet", "1", file, "")


def test_hidden_folders_and_files_are_no_models(repository):
    path = repository(_DOT_git__config="", README_DOT_md="", m__1__model_DOT_onnx="")
    assert [found.name for found in find(path)] == ["m"]


@pytest.mark.parametrize(
    ("policy", "versions"),
    [("latest", [5]), ("latest:2", [3, 5]), ("latest:9", [1, 3, 5]), ("all", [1, 3, 5]), ("1,5", [1, 5]), ("3", [3])],
)
def test_version_policies(policy, versions):
    assert choose_versions([1, 3, 5], policy) == versions


@pytest.mark.parametrize("policy", ["newest", "latest:0", "latest:x", "1,x", "", "2", "1,2"])
def test_wrong_version_policies_say_what_was_given(policy):
    with pytest.raises(ConfigError) as error:
        choose_versions([1, 3, 5], policy)
    assert repr(policy) in str(error.value)


def test_model_toml_sets_options_over_the_servers_defaults(repository):
    path = repository(
        m__1__net_DOT_onnx="",
        m__model_DOT_toml='filename = "net.onnx"\ninstances = 2\n[onnxruntime]\nintra_op_threads = 3\n',
    )
    from trtserve_engines.config import OnnxRuntimeOptions

    (found,) = find(path, onnxruntime=OnnxRuntimeOptions(intra_op_threads=1, inter_op_threads=5))
    assert found.path.name == "net.onnx"
    assert found.config.instances == 2
    assert (found.config.onnxruntime.intra_op_threads, found.config.onnxruntime.inter_op_threads) == (3, 5)


def test_config_pbtxt_is_read_by_our_names(repository, caplog):
    path = repository(
        m__1__model_DOT_onnx="",
        m__2__model_DOT_onnx="",
        m__config_DOT_pbtxt="""
            name: "m"
            platform: "onnxruntime_onnx"
            max_batch_size: 16
            input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] } ]
            output [ { name: "y" data_type: TYPE_STRING dims: [ 1 ] label_filename: "l.txt" } ]
            instance_group [ { count: 2 kind: KIND_CPU } ]
            version_policy: { specific { versions: [ 1, 2 ] } }
            dynamic_batching {
              preferred_batch_size: [ 4, 8 ]
              max_queue_delay_microseconds: 100
              priority_levels: 3
              default_priority_level: 2
              default_queue_policy { max_queue_size: 7 default_timeout_microseconds: 500 timeout_action: DELAY }
              priority_queue_policy { key: 1 value { max_queue_size: 2 allow_timeout_override: true } }
            }
            optimization { eager_batching: true }
        """,
    )
    with caplog.at_level(logging.WARNING):
        first, second = find(path)
    config = first.config
    assert (first.version, second.version) == ("1", "2")
    assert (config.max_batch_size, config.instance_groups) == (16, (InstanceGroupConfig(2, "cpu"),))
    assert [(tensor.name, tensor.datatype, tensor.dims) for tensor in config.inputs] == [("x", "FP32", (3, -1))]
    assert [(tensor.datatype, tensor.label_filename) for tensor in config.outputs] == [("BYTES", "l.txt")]
    assert config.batching.preferred_batch_sizes == (4, 8)
    assert (config.batching.max_queue_delay_us, config.batching.max_queue_size) == (100, 7)
    assert (config.batching.priority_levels, config.batching.default_priority_level) == (3, 2)
    assert (config.batching.default_timeout_us, config.batching.timeout_action) == (500, "delay")
    assert not config.batching.allow_timeout_override
    (level,) = config.levels
    assert (level.level, level.max_queue_size, level.timeout_action) == (1, 2, "reject")
    assert level.allow_timeout_override
    assert "no effect here: optimization.eager_batching (a batch is gathered" in caplog.text


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"m__model_DOT_toml": ""}, ["no version folder", "model.onnx"]),
        ({"m__1__other_DOT_onnx": ""}, ["holds no model.onnx"]),
        ({"m__1__model_DOT_onnx": "", "m__model_DOT_toml": "instanses = 1"}, ["model.toml", "'instances'"]),
        ({"m__1__model_DOT_onnx": "", "m__model_DOT_toml": 'name = "n"'}, ["'n'", "'m'"]),
        ({"m__1__model_DOT_onnx": "", "m__model_DOT_toml": "x\n"}, ["model.toml", "line 1"]),
        ({"m__1__model_DOT_onnx": "", "m__config_DOT_pbtxt": "max_batch: 1"}, ["config.pbtxt", "max_batch"]),
        ({"m__1__model_DOT_onnx": "", "m__config_DOT_pbtxt": 'backend: "python"'}, ["'python'", "ONNX"]),
        ({"m__1__model_DOT_onnx": "", "m__config_DOT_pbtxt": "sequence_batching {}"}, ["sequence_batching"]),
        ({"m__1__model_DOT_onnx": "", "m__config_DOT_pbtxt": "ensemble_scheduling {}"}, ["ensemble_scheduling"]),
        (
            {"m__1__model_DOT_onnx": "", "m__config_DOT_pbtxt": "", "m__model_DOT_toml": ""},
            ["both model.toml and config.pbtxt"],
        ),
        ({"m__1__model_DOT_onnx": "", "m__model_DOT_toml": 'versions = "7"'}, ["no version 7"]),
    ],
)
def test_what_is_wrong_with_a_model_is_that_models_problem(repository, files, words):
    path = repository(good__1__model_DOT_onnx="", **files)
    good, bad = sorted(find(path), key=lambda found: found.name)
    assert good.problem == ""
    assert bad.name == "m"
    for word in words:
        assert word in bad.problem


def test_two_models_of_one_name_are_refused_with_both_places(tmp_path):
    for repository in "ab":
        (tmp_path / repository / "m" / "1").mkdir(parents=True)
    (found,) = find(str(tmp_path / "a"), str(tmp_path / "b"))
    assert str(tmp_path / "a" / "m") in found.problem
    assert str(tmp_path / "b" / "m") in found.problem


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_a_repository_that_is_none_stops_the_start(tmp_path, kind):
    path = tmp_path / "r"
    if kind == "file":
        path.touch()
    with pytest.raises(ConfigError, match="model repository"):
        find(str(path))


@pytest.mark.parametrize("name", ["model.toml", "config.pbtxt"])
def test_a_pipe_in_a_configurations_place_is_refused_and_not_waited_for(repository, name):
    path = repository(m__1__model_DOT_onnx="")
    os.mkfifo(Path(path) / "m" / name)
    (found,) = find(path)
    assert "it is not a regular file" in found.problem
