"""trtserve-build's commands that need no GPU, their JSON, their exit codes and their answers to mistakes."""

import json
import os
import time
from importlib.metadata import version

import pytest

from tests.unit.engines.tensorrt.test_engine_cache import KEY, PLAN, flip_bit, key_of, publish, spoil_sidecar
from trtserve_engines.config import ConfigError
from trtserve_engines.tensorrt.cli.main import COMMANDS, main
from trtserve_engines.tensorrt.cli.outcome import duration_text, size_text
from trtserve_engines.tensorrt.cli.quantities import bytes_from_text, seconds_from_text
from trtserve_engines.tensorrt.engine_cache import EngineCache


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def call(cache, capsys):
    """Runs a command on the cache: exit code, standard output, standard error."""

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main([*words, "--engine-cache", str(cache.folder)])
        return (end.value.code or 0, *capsys.readouterr())

    return run


def call_json(call, *words):
    code, output, _ = call(*words, "--json")
    return code, json.loads(output)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lst"], "trtserve-build: 'lst' is unknown; did you mean 'list'?"),
        (["list", "--jsn"], "trtserve-build list: '--jsn' is unknown; did you mean '--json'?"),
        (["show"], "trtserve-build show: the following arguments are required: KEY"),
        (["prune"], "trtserve-build: nothing to go by; say --max-bytes SIZE or --older-than DURATION"),
        (["prune", "--max-bytes", "big"], "--max-bytes = 'big'; wanted is a size such as 500MiB"),
        (["prune", "--older-than", "1y"], "--older-than = '1y'; wanted is a duration such as 12h"),
        (["show", "abc"], "key 'abc' is no engine's in "),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_exit_code_2(call, words, message):
    code, output, error = call(*words)
    assert (code, output) == (2, "")
    assert message in error
    assert error.count("\n") == 1


def test_a_mistake_can_be_read_as_json(call):
    code, values = call_json(call, "show", "abc")
    assert code == values["exit_code"] == 2
    assert values["error"].startswith("key 'abc' is no engine's")


def test_a_cache_that_cannot_be_trusted_is_refused_with_exit_code_1(cache, call):
    cache.folder.chmod(0o755)
    code, _, error = call("list")
    assert code == 1
    assert f"run chmod 700 {cache.folder}" in error


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_names_every_command_and_the_exit_codes(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(words)
    output = capsys.readouterr().out
    assert end.value.code == (0 if words else 2)
    assert all(f"  {name} " in output for name in COMMANDS)
    assert "exit codes: 0 done" in output


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr()) == (0, (f"trtserve-build {version('trtserve')}\n", ""))


def test_the_cache_may_be_named_in_the_environment_as_for_the_server(cache, capsys, monkeypatch, tmp_path):
    publish(cache)
    monkeypatch.setenv("TRTSERVE_ENGINE_CACHE", str(cache.folder))
    with pytest.raises(SystemExit):
        main(["list"])
    assert "1 engine," in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["list", "--engine-cache", str(tmp_path / "other")])
    assert "0 engines" in capsys.readouterr().out
    monkeypatch.setenv("TRTSERVE_ENGINE_CACHE_MAX_BYTES", "much")
    with pytest.raises(SystemExit) as end:
        main(["list"])
    assert end.value.code == 2
    assert "TRTSERVE_ENGINE_CACHE_MAX_BYTES = 'much'; wanted is a whole number" in capsys.readouterr().err


# ---- list and show ----


def test_an_empty_cache_is_listed_as_such(cache, call):
    assert call("list") == (0, f"0 engines, 0 bytes, in {cache.folder}\n", "")
    assert call_json(call, "list") == (
        0,
        {"folder": str(cache.folder), "total_bytes": 0, "engines": [], "damaged": {}},
    )


def test_engines_are_listed_with_what_is_wrong(cache, call):
    publish(cache, build_s=90.0)
    publish(cache, key_of(1))
    spoil_sidecar(cache.folder / "engines" / key_of(1).digest)
    publish(cache, key_of(2))
    with cache.lock(key_of(2)):
        cache.set_aside(key_of(2).digest, "its plan has 0 bytes")
    code, output, _ = call("list")
    assert code == 0
    row = next(line for line in output.splitlines() if line.startswith(KEY.digest[:12]))
    assert row.split()[1:5] == ["m.onnx", "A", "10.16", "16.0"]
    assert f"{key_of(1).digest[:12]}  (damaged)" in output
    assert f"set aside: {key_of(2).digest[:12]}: its plan has 0 bytes" in output
    assert "2 engines, 32.0 KiB" in output


def test_show_says_all_that_is_known(cache, call):
    publish(cache, accuracy={"outputs": [{"name": "y", "max_abs": 0.25}]}, memory={"plan_bytes": 5}, build_s=90.0)
    code, output, _ = call("show", KEY.digest[:6])
    assert code == 0
    for text in (KEY.digest, "in 90 s", "driver_version = 13, 0", "x [-1, 4]", "max_abs = 0.25", "plan_bytes = 5"):
        assert text in output
    code, values = call_json(call, "show", KEY.digest)
    assert (code, values["digest"], values["key"]["gpu"]["name"]) == (0, KEY.digest, "A")


def test_a_beginning_that_fits_several_keys_is_refused(cache, call):
    for number in range(2):
        publish(cache, key_of(number))
    code, _, error = call("show", "")
    assert code == 2
    assert "is the beginning of 2 engines' keys; give more of it" in error


def test_showing_a_damaged_engine_leaves_exit_code_1(cache, call):
    publish(cache)
    spoil_sidecar(cache.folder / "engines" / KEY.digest)
    code, output, _ = call("show", KEY.digest)
    assert code == 1
    assert "damaged: its entry.json is not one that trtserve writes" in output


# ---- verify and prune ----


def test_verify_reads_every_byte(cache, call):
    publish(cache)
    publish(cache, key_of(1))
    assert call("verify")[0] == 0
    flip_bit(cache.folder / "engines" / KEY.digest)
    code, output, _ = call("verify")
    assert code == 1
    assert f"{key_of(1).digest[:12]}  good" in output
    assert "1 of 2 engines are good" in output
    assert call("verify", key_of(1).digest)[0] == 0
    code, values = call_json(call, "verify")
    assert (code, values["good"], list(values["damaged"])) == (1, [key_of(1).digest], [KEY.digest])


def test_prune_says_what_it_freed(cache, call):
    for number in range(3):
        publish(cache, key_of(number))
        os.utime(cache.folder / "engines" / key_of(number).digest, (0, time.time() - 86400 * number - 60))
    code, output, _ = call("prune", "--older-than", "2d")
    assert (code, output) == (0, f"1 engine removed, 16.0 KiB freed; 32.0 KiB left in {cache.folder}\n")
    code, values = call_json(call, "prune", "--max-bytes", "20KiB")
    assert values == {"removed": [key_of(1).digest], "freed_bytes": len(PLAN), "left_bytes": len(PLAN)}


# ---- quantities ----


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("12", 12), ("1.5k", 1536), ("2MiB", 2 << 20), ("20 GB", 20 << 30), ("1T", 1 << 40)]
)
def test_sizes(text, size):
    assert bytes_from_text(text, "--x") == size


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), ("1.5m", 90), ("2h", 7200), ("30d", 2592000), ("1w", 604800)])
def test_durations(text, seconds):
    assert seconds_from_text(text, "--x") == seconds


@pytest.mark.parametrize("text", ["", "-1", "1 2", "KiB", "1x", "nan"])
def test_what_is_no_quantity_is_refused(text):
    for read in (bytes_from_text, seconds_from_text):
        with pytest.raises(ConfigError, match="--x = "):
            read(text, "--x")


def test_quantities_are_shown_in_the_unit_that_suits_them():
    assert [size_text(size) for size in (0, 1023, 1024, 5 << 30, 3 << 50)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "5.0 GiB",
        "3072.0 TiB",
    ]
    assert [duration_text(seconds) for seconds in (0.04, 9, 99, 100, 7000)] == [
        "0.0 s",
        "9.0 s",
        "99 s",
        "2 min",
        "2 h",
    ]
