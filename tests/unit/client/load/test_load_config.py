"""The command line and plan files: everything derives from LoadConfig, and wrong use is refused in words."""

import argparse
import dataclasses

import pytest

from trtserve_client.load.cli import _without_secrets, main
from trtserve_client.load.comparison import plan_targets, price_targets
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import UsageError
from trtserve_client.load.options import add_arguments, config_from_arguments


def parse(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return config_from_arguments(parser.parse_args(words))


def test_every_option_has_a_help_text():
    assert all(field.metadata["help"] for field in dataclasses.fields(LoadConfig))


def test_lists_have_commas_and_options_may_be_repeated():
    config = parse("m", "--concurrency", "1, 4,16", "--fail-if", "p99 > 1", "--fail-if", "errors > 0", "--quiet")
    assert config == LoadConfig(model="m", concurrency=(1, 4, 16), fail_if=("p99 > 1", "errors > 0"), quiet=True)
    assert parse("m", "--compare", "grpc,uds", "--uds-url", "unix:/s").compare == ("grpc", "uds")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a model is wanted"),
        (["m", "--workers", "100000"], "--workers 100000: wanted is at most 256"),
        (["m", "--rate", "inf"], "--rate inf: wanted is a number above 0 each"),
        (["m", "--concurency", "1"], "--concurency"),
        (["m", "--concurrency", "x"], "a whole number"),
        (["m", "--concurrency", "0"], "at least 1"),
        (["m", "--rate", "-1"], "a number above 0"),
        (["m", "--rate", "nan"], "a number above 0"),
        (["m", "--duration-s", "0"], "more than 0"),
        (["m", "--duration-s", "inf"], "more than 0"),
        (["m", "--rate", "1", "--concurrency", "1"], "--concurrency and --rate contradict"),
        (["m", "--find-capacity"], "--p99-ms"),
        (["m", "--p99-ms", "5"], "--find-capacity"),
        (["m", "--streams", "2", "--concurrency", "4"], "--in-flight"),
        (["m", "--in-flight", "4"], "--streams N"),
        (["m", "--arrivals", "weekly"], "poisson, constant"),
        (["m", "--compare", "grpc"], "two different"),
        (["m", "--compare", "grpc,grpc"], "two different"),
        (["m", "--compare", "grpc,pigeon"], "pigeon"),
        (["m", "--compare", "grpc,uds"], "--uds-url"),
        (["m", "--compare", "in-process,grpc"], "--model-file"),
        (["m", "--compare", "grpc,stream", "--rate", "5"], "--concurrency alone"),
        (["m", "--compare", "grpc,stream", "--concurrency", "1,2"], "one --concurrency"),
        (["m", "--fail-if", "p99 > baseline.p99"], "--baseline FILE"),
        (["m", "--fail-if", "p99 >"], "the end stands"),
        (["m", "--baseline", "nowhere.json", "--fail-if", "p99 > baseline.p99"], "nowhere.json"),
        (["m", "--baseline", "nowhere.json"], "--baseline is for --fail-if"),
        (["m", "--model-file", "m.onnx"], "--model-file is for --compare in-process"),
        (["m", "--uds-url", "unix:/s", "--compare", "grpc,stream"], "--uds-url is for --compare uds"),
        (["m", "--arrivals", "constant"], "--arrivals is for --rate"),
        (["m", "--max-in-flight", "3"], "--max-in-flight is for --rate"),
        (["m", "--count", "3", "--duration-s", "5"], "--duration-s is for loads that a time ends"),
        (["m", "--trace", "t.jsonl", "--warmup-s", "1"], "--warmup-s is for loads but a --trace"),
        (["m", "--find-capacity", "--p99-ms", "5", "--repeats", "3"], "--repeats is for loads that are given"),
        (["m", "--data", "x.npy", "--rows", "2"], "--rows is for made-up data"),
        (["m", "--image-scale", "0.5"], "--image-scale is for --data with a folder"),
        (["m", "--data", "zeros", "--range", "x=0:1"], "--range is for --data random"),
        (["m", "--report", "/nowhere/r.html"], "/nowhere is not a folder"),
        (["m", "--url", "ftp://x"], "ftp"),
        (["m", "--metadata", "token"], "NAME=VALUE"),
        (["m", "--private-key", "k.pem"], "certificate_chain"),
        (["m", "--root-certificates", "nowhere.pem"], "nowhere.pem"),
        (["compare"], "plan"),
        (["compare", "nowhere.toml"], "nowhere.toml cannot be read"),
    ],
)
def test_wrong_use_is_refused_with_exit_code_2(words, message, capsys):
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.err.startswith("trtserve-load: error: ")
    assert message in output.err
    assert len(output.err.splitlines()) == 1


def plan(tmp_path, text):
    (tmp_path / "plan.toml").write_text(text)
    return plan_targets(str(tmp_path / "plan.toml"))


def test_a_plan_has_a_load_and_targets_over_it(tmp_path):
    targets = plan(
        tmp_path,
        '[load]\nmodel = "m"\nrate = 50\nrepeats = 7\n'
        '[[target]]\nname = "one"\nurl = "a:1"\n[[target]]\nname = "two"\nurl = "b:2"\nmodel = "n"\n',
    )
    assert (targets.rounds, targets.first) == (7, "one")
    assert targets.by_name["one"] == LoadConfig(model="m", rate=(50.0,), repeats=7, url="a:1")
    assert targets.by_name["two"].model == "n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[load", "plan.toml"),
        ("[lode]", "'lode' is unknown"),
        ("[load]\nmodel = 3", "load: model = 3: wanted is str"),
        ("[load]\nratte = 3", "did you mean 'rate'"),
        ('[load]\nmodel = "m"\n[[target]]\nname = "a"', "at least two"),
        ('[[target]]\nname = "a"\n[[target]]\nname = "b"', "target 1: no model"),
        ('[load]\nmodel = "m"\n[[target]]\n[[target]]\nname = "b"', "target 1: a name is wanted"),
        ('[load]\nmodel = "m"\n[[target]]\nname = "b"\n[[target]]\nname = "b"', "two targets are called 'b'"),
        ('[load]\nmodel = "m"\n[[target]]\nname = "b"\nrows = 0\n[[target]]\nname = "c"', "target 1: --rows 0"),
        (
            '[load]\nmodel = "m"\n[[target]]\nname = "b"\nmodel_file = "f"\n[[target]]\nname = "c"',
            "target 1: --model-file is for --compare",
        ),
        (
            '[load]\nmodel = "m"\narrivals = "constant"\n[[target]]\nname = "b"\n[[target]]\nname = "c"',
            "load, for no target: --arrivals is for",
        ),
        ("load = 3", "must be a table"),
        ("target = 3", "at least two"),
    ],
)
def test_mistakes_in_a_plan_are_named_with_their_table(tmp_path, text, words):
    with pytest.raises(UsageError) as error:
        plan(tmp_path, text)
    assert words in str(error.value)


def test_what_a_plan_says_for_all_may_be_for_some(tmp_path):
    targets = plan(
        tmp_path,
        '[load]\nmodel = "m"\narrivals = "constant"\nmodel_file = "m.onnx"\n'
        '[[target]]\nname = "in-process"\n[[target]]\nname = "b"\nrate = 5\n',
    )
    assert targets.by_name["b"].arrivals == "constant"


def test_the_ways_of_a_price():
    config = LoadConfig(
        model="m",
        compare=("grpc", "uds", "stream", "shm", "in-process"),
        uds_url="unix:/s",
        model_file="m.onnx",
        concurrency=(4,),
    )
    ways = price_targets(config)
    assert ways.first == "in-process"
    assert ways.by_name["uds"].url == "unix:/s"
    assert (ways.by_name["stream"].streams, ways.by_name["stream"].concurrencies) == (1, (4,))
    assert ways.by_name["shm"].shared_memory
    assert ways.by_name["grpc"] == dataclasses.replace(config, compare=())


def test_tokens_do_not_get_into_the_command_of_a_report():
    words = ["m", "--metadata", "authorization=Bearer secret", "--metadata=token=secret", "--rows", "2"]
    assert _without_secrets(words) == ["m", "--metadata", "authorization=...", "--metadata=token=...", "--rows", "2"]
