"""Options derived from the dataclasses: command line, environment, file, and how they are refused."""

import dataclasses
import tracemalloc

import pytest

from trtserve_engines.config import ConfigError
from trtserve_engines.options import as_mapping, build, nearest, options_of
from trtserve_server.cli import _parser, config_text, main, read_config
from trtserve_server.config import ModelConfig, ServerConfig, parse_address
from trtserve_server.options import from_environment, toml_text


def parse(*arguments, environment=()):
    return read_config(_parser().parse_args(arguments), dict(environment))


def test_every_field_has_a_help_text_a_flag_and_a_variable():
    options = list(options_of(ServerConfig))
    assert all(option.help for option in options)
    assert len({option.flag for option in options}) == len({option.variable for option in options}) == len(options)


def test_every_field_of_a_model_has_a_help_text():
    assert all(option.help for option in options_of(ModelConfig))


def test_command_line_wins_over_environment_over_file_over_default(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("instances = 2\nstream_window = 2\nload_threads = 2\n[onnxruntime]\nintra_op_threads = 2\n")
    environment = {
        "TRTSERVE_INSTANCES": "3",
        "TRTSERVE_STREAM_WINDOW": "3",
        "TRTSERVE_ONNXRUNTIME_INTER_OP_THREADS": "3",
    }
    config = parse("--config", str(file), "--instances", "4", environment=environment)
    assert (config.instances, config.stream_window, config.load_threads) == (4, 3, 2)
    assert config.onnxruntime.intra_op_threads == 2
    assert config.onnxruntime.inter_op_threads == 3
    assert config.default_max_batch_size == ServerConfig().default_max_batch_size


def test_models_and_repositories_may_be_given_several_times():
    config = parse("a.onnx", "--model-repository", "r", "--model-repository", "s", "b.onnx")
    assert config.model == ("a.onnx", "b.onnx")
    assert config.model_repository == ("r", "s")


def test_lists_and_booleans_in_the_environment():
    config = parse(environment={"TRTSERVE_MODEL_REPOSITORY": "a, b", "TRTSERVE_REFLECTION": "false"})
    assert config.model_repository == ("a", "b")
    assert config.reflection is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grpc-adress", "x:1"], ["'--grpc-adress'", "'--grpc-address'"]),
        (["--grpc", "x:1"], ["'--grpc'"]),
        (["--instances", "many"], ["--instances", "'many'", "whole number"]),
        (["--instances", "-1"], ["instances = -1", "at least 0"]),
        (["--drain-timeout-s", "soon"], ["--drain-timeout-s", "a number"]),
        (["--backend", "tensorflow"], ["'tensorflow'", "onnxruntime"]),
        (["--device", "tpu"], ["'tpu'", "gpu:0,1"]),
        (["--device", "gpu:x"], ["'gpu:x'"]),
        (["--grpc-address", "8001"], ["'8001'", "HOST:PORT"]),
        (["--grpc-address", "localhost:99999"], ["'localhost:99999'"]),
        (["--http-address", "nowhere"], ["http_address", "'nowhere'"]),
        (["--tls-key", "k.pem"], ["tls_certificate", "tls_key"]),
        (["--tls-client-ca", "k.pem"], ["tls_client_ca"]),
        (["--max-message-bytes", "3000000000"], ["3000000000", "2147483647"]),
        (["--batching-preferred-batch-sizes", "2,x"], ["'x'"]),
        (["--onnxruntime-execution-mode", "fast"], ["'fast'", "sequential, parallel"]),
        (["--onnxruntime-intra-op-threads", "-1"], ["intra_op_threads = -1"]),
        (["--config", "absent.toml"], ["absent.toml"]),
        (["--model-repository", "/nonexistent/folder"], ["'/nonexistent/folder'", "does not exist"]),
        (["missing.onnx"], ["'missing.onnx'", "does not exist"]),
    ],
)
def test_a_wrong_option_is_one_clear_line_and_exit_code_2(arguments, words, capsys, monkeypatch):
    for name in list(__import__("os").environ):
        if name.startswith("TRTSERVE_"):
            monkeypatch.delenv(name)
    with pytest.raises(SystemExit) as exit:
        main([*arguments, "--print-config"])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("instanses = 1", ["'instanses'", "'instances'"]),
        ("instances = '1'", ["instances", "int", "str"]),
        ("instances = true", ["instances", "int", "bool"]),
        ("model = 'a.onnx'", ["model", "list"]),
        ("onnxruntime = 1", ["onnxruntime", "table"]),
        ("[onnxruntime]\nthreads = 1", ["onnxruntime", "'threads'"]),
        ("instances = \n", ["line 1"]),
        ("instances = " + "9" * 5000, ["digits"]),
        ("drain_timeout_s = 1" + "0" * 400, ["drain_timeout_s", "64"]),
        ("model = " + "[" * 5000, ["nested too deeply"]),
    ],
)
def test_a_wrong_file_is_named_with_its_mistake(text, words, tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        parse("--config", str(file))
    for word in ["bad.toml", *words]:
        assert word in str(error.value)


def test_an_unknown_variable_is_refused_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match="TRTSERVE_INSTANCES"):
        from_environment(ServerConfig, {"TRTSERVE_INSTANCE": "1"})


def test_a_name_as_long_as_a_message_is_not_searched_through():
    name = "instance" + "s" * 2_000_000
    tracemalloc.start()
    try:
        assert nearest(name, ["instances", "model"]) == "; known are instances, model"
        assert tracemalloc.get_traced_memory()[1] < 100_000  # bytes; an index of the name takes 16 million
    finally:
        tracemalloc.stop()


def test_other_programs_variables_and_the_clients_are_left_alone():
    assert from_environment(ServerConfig, {"HOME": "/", "TRTSERVE_CLIENT_URL": "x"}) == {}


def test_the_printed_configuration_can_be_read_back(tmp_path):
    config = dataclasses.replace(ServerConfig(), instances=3, stream_window=5, log_level="debug")
    file = tmp_path / "c.toml"
    file.write_text(config_text(config))
    assert parse("--config", str(file)) == config


def test_a_model_configuration_survives_its_text_form():
    values = {
        "name": "m",
        "max_batch_size": 4,
        "outputs": [{"name": "y", "datatype": "FP32", "dims": [3], "label_filename": 'a "b".txt'}],
        "batching": {"preferred_batch_sizes": [2, 4]},
    }
    config = build(ModelConfig, values, "test")
    import tomllib

    assert build(ModelConfig, tomllib.loads(toml_text(as_mapping(config))), "text") == config


def test_preferred_sizes_above_the_largest_batch_are_refused_with_both_values():
    with pytest.raises(ConfigError, match="8.*max_batch_size = 4"):
        build(ModelConfig, {"max_batch_size": 4, "batching": {"preferred_batch_sizes": [8]}}, "test")


@pytest.mark.parametrize(("address", "parts"), [("[::1]:8001", ("::1", 8001)), ("host:0", ("host", 0))])
def test_addresses(address, parts):
    assert parse_address(address, "a") == parts


def test_ctrl_c_while_the_options_are_read_is_no_stack_trace(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("trtserve_server.cli.read_config", interrupted)
    with pytest.raises(SystemExit) as exit:
        main([])
    assert exit.value.code == 130


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert all(option.flag in text for option in options_of(ServerConfig) if option.path != ("model",))
