"""What the server refuses to start with: exit code 2 and one line that says what was given and what is wanted.

What reaches no socket is asked of the command in this process, which is quicker; one of each kind, and everything
that does, is asked of a process.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.models import make_models
from tests.support.running_server import RunningServer
from tests.support.server_process import run
from trtserve_engines.config import ConfigError
from trtserve_server import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds m.onnx and an empty repository."""
    made = tmp_path_factory.mktemp("start")
    make_models.save(make_models.scale(2.0), made / "m.onnx")
    (made / "repository").mkdir()
    return made


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """An address that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


ANY = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")

# Arguments, environment, and words of the refusal; {folder} and {taken} are filled in.
PROCESSES: dict[str, tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]] = {
    "repository that does not exist": (
        ("--model-repository", "/no/such"),
        {},
        ("model repository '/no/such' does not exist", "NAME/VERSION/model.onnx"),
    ),
    "model file that does not exist": (
        ("/no/such.onnx",),
        {},
        ("model file '/no/such.onnx' does not exist", "path of an ONNX file"),
    ),
    "gRPC port in use": (
        ("{folder}/m.onnx", "--http-address", "127.0.0.1:0", "--grpc-address", "{taken}"),
        {},
        ("grpc_address = '{taken}'", "Address already in use", "--grpc-address"),
    ),
    "HTTP port in use": (
        ("{folder}/m.onnx", "--grpc-address", "127.0.0.1:0", "--http-address", "{taken}"),
        {},
        ("http_address = '{taken}'", "Address already in use", "--http-address"),
    ),
    "gRPC host that nobody knows": (
        ("{folder}/m.onnx", "--http-address", "", "--grpc-address", "no.such.invalid:0"),
        {},
        ("grpc_address = 'no.such.invalid:0'", "--grpc-address"),
    ),
    "HTTP host that nobody knows": (
        ("{folder}/m.onnx", "--grpc-address", "127.0.0.1:0", "--http-address", "no.such.invalid:0"),
        {},
        ("http_address = 'no.such.invalid:0'", "--http-address"),
    ),
    "unknown option": (("--bakcend=auto",), {}, ("'--bakcend' is unknown", "did you mean '--backend'")),
    "unknown variable": (
        ANY,
        {"TRTSERVE_INSTANCE": "1"},
        ("'TRTSERVE_INSTANCE' is unknown", "did you mean 'TRTSERVE_INSTANCES'"),
    ),
    "variable that is no number": (ANY, {"TRTSERVE_INSTANCES": "two"}, ("TRTSERVE_INSTANCES = 'two'", "whole number")),
    "nothing to serve": (ANY, {}, ("nothing to serve", "trtserve MODEL.onnx", "--model-repository DIR")),
    "backend that is not here": (
        (*ANY, "{folder}/m.onnx", "--backend=tensorrt"),
        {},
        ("backend tensorrt was asked for", "use --backend onnxruntime"),
    ),
    "device that is not here": (
        (*ANY, "{folder}/m.onnx", "--device=gpu"),
        {},
        ("device gpu was asked for", "use --device cpu"),
    ),
    "TLS file that does not exist": (
        (*ANY, "{folder}/m.onnx", "--tls-key=/no/such.pem", "--tls-certificate=/no/such.pem"),
        {},
        ("'/no/such.pem' cannot be read", "No such file"),
    ),
}


@pytest.fixture(scope="module")
def outcomes(folder: Path, taken: str) -> Iterator[dict[str, Future]]:
    """The processes, which run side by side."""
    with ThreadPoolExecutor(3) as pool:
        yield {
            name: pool.submit(run, *(_filled(argument, folder, taken) for argument in arguments), **environment)
            for name, (arguments, environment, _) in PROCESSES.items()
        }


def _filled(text: str, folder: Path, taken: str) -> str:
    return text.replace("{folder}", str(folder)).replace("{taken}", taken)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_process_ends_with_2_and_one_line(outcomes: dict[str, Future], folder: Path, taken: str, name: str) -> None:
    ended = outcomes[name].result()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert_one_line(ended.stderr, *(_filled(word, folder, taken) for word in PROCESSES[name][2]))


def assert_one_line(text: str, *words: str) -> None:
    (line,) = text.splitlines()
    assert line.startswith("trtserve: ")
    assert [word for word in words if word not in line] == [], line


Refuse = Callable[..., None]


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Asserts that the command ends with 2 and one line that has the words in it."""

    def check(arguments: list[str], *words: str, **environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments, "--print-config"])  # which ends what would be served otherwise
        output = capsys.readouterr()
        assert (caught.value.code, output.out) == (2, "")
        assert_one_line(output.err, *words)

    return check


OPTIONS = [
    (["--instances=two"], ("--instances = 'two'", "whole number")),
    (["--instances=1.5"], ("--instances = '1.5'", "whole number")),
    (["--instances="], ("--instances = ''", "whole number")),
    (["--instances=-1"], ("instances = -1", "at least 0")),
    (["--max-running=-1"], ("max_running = -1", "at least 0")),
    (["--max-inflight-bytes=0"], ("max_inflight_bytes = 0", "at least 1")),
    (["--batching-max-queue-bytes=0"], ("max_queue_bytes = 0", "at least 1")),
    (["--batching-timeout-action=drop"], ("timeout_action = 'drop'", "reject, delay")),
    (
        ["--batching-priority-levels=2", "--batching-default-priority-level=3"],
        ("default_priority_level = 3", "priority_levels = 2"),
    ),
    (["--instances"], ("--instances", "expected one argument")),
    (["--stream-window=0"], ("stream_window = 0", "at least 1")),
    (["--load-threads=0"], ("load_threads = 0", "at least 1")),
    (["--default-max-batch-size=0"], ("default_max_batch_size = 0", "at least 1")),
    (["--max-message-bytes=0"], ("max_message_bytes = 0", "at least 1")),
    (["--max-message-bytes=9999999999"], ("max_message_bytes = 9999999999", "2147483647")),
    (["--max-calls-per-connection=0"], ("max_calls_per_connection = 0", "at least 1")),
    (["--max-calls-per-connection=9999999999"], ("max_calls_per_connection = 9999999999", "2147483647")),
    (["--min-ping-interval-ms=9999999999"], ("min_ping_interval_ms = 9999999999", "2147483647")),
    (["--drain-timeout-s=soon"], ("--drain-timeout-s = 'soon'", "a number")),
    (["--drain-timeout-s=-1"], ("drain_timeout_s = -1", "at least 0")),
    (["--drain-timeout-s=nan"], ("drain_timeout_s = nan", "at least 0")),
    (["--inline-run-limit-us=-1"], ("inline_run_limit_us = -1", "at least 0")),
    (["--backend=tensor"], ("backend = 'tensor'", "auto, tensorrt, onnxruntime")),
    (["--backend=AUTO"], ("backend = 'AUTO'", "auto, tensorrt, onnxruntime")),
    (["--log-level=loud"], ("log_level = 'loud'", "debug, info, warning, error")),
    (["--device=tpu"], ("device = 'tpu'", "gpu:0,1")),
    (["--device=gpu:"], ("device = 'gpu:'", "gpu:0,1")),
    (["--device=gpu:a"], ("device = 'gpu:a'", "gpu:0,1")),
    (["--device=cpu:0"], ("device = 'cpu:0'", "gpu:0,1")),
    (["--batching-preferred-batch-sizes=4,x"], ("--batching-preferred-batch-sizes = 'x'", "whole number")),
    (["--batching-preferred-batch-sizes=4,0"], ("preferred_batch_sizes = [4, 0]", "at least 1")),
    (["--batching-max-queue-size=0"], ("max_queue_size = 0", "at least 1")),
    (["--onnxruntime-execution-mode=both"], ("execution_mode = 'both'", "sequential, parallel")),
    (["--strict-readiness=yes"], ("--strict-readiness", "argument")),
    (["--tls-key=key.pem"], ("tls_certificate and tls_key go together",)),
    (["--tls-client-ca=ca.pem"], ("tls_client_ca needs",)),
    (["--model=m.onnx"], ("'--model' is unknown", "did you mean '--model-repository'")),
    (["--grpc"], ("'--grpc' is unknown", "did you mean '--grpc-address'")),
    (["--xyz"], ("'--xyz' is unknown", "known are", "--backend")),
    (["-p", "8001"], ("'-p' is unknown",)),
]


@pytest.mark.parametrize(("arguments", "words"), OPTIONS, ids=[" ".join(arguments) for arguments, _ in OPTIONS])
def test_an_option_that_cannot_be_is_refused(refuses: Refuse, arguments: list[str], words: tuple[str, ...]) -> None:
    refuses(arguments, *words)


ADDRESSES = ["8001", "localhost", ":8001", "localhost:", "localhost:http", "localhost:65536", "localhost:-1", "[::1]"]


@pytest.mark.parametrize("option", ["grpc", "http"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_is_refused_with_an_example(refuses: Refuse, option: str, address: str) -> None:
    refuses([f"--{option}-address={address}"], f"{option}_address = '{address}'", "HOST:PORT", "127.0.0.1:8001")


def test_an_empty_grpc_address_is_refused(refuses: Refuse) -> None:
    refuses(["--grpc-address="], "grpc_address = ''", "HOST:PORT")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TRTSERVE_REFLECTION", "maybe", ("TRTSERVE_REFLECTION = 'maybe'", "true or false")),
        ("TRTSERVE_DRAIN_TIMEOUT_S", "soon", ("TRTSERVE_DRAIN_TIMEOUT_S = 'soon'", "a number")),
        ("TRTSERVE_BACKEND", "tensor", ("backend = 'tensor'", "auto, tensorrt, onnxruntime")),
        ("TRTSERVE_BATCHING_MAX_QUEUE_SIZE", "0", ("max_queue_size = 0", "at least 1")),
        ("TRTSERVE_XYZ", "1", ("'TRTSERVE_XYZ' is unknown",)),
        ("TRTSERVE_", "1", ("'TRTSERVE_' is unknown",)),
    ],
)
def test_a_variable_that_cannot_be_is_refused(refuses: Refuse, name: str, value: str, words: tuple[str, ...]) -> None:
    refuses([], *words, **{name: value})


FILES = [
    ("instanses = 2", ("'instanses' is unknown", "did you mean 'instances'")),
    ("[batching]\nmax_queue = 2", ("batching", "'max_queue' is unknown", "did you mean 'max_queue_size'")),
    ("[batch]\nmax_queue_size = 2", ("'batch' is unknown", "did you mean 'batching'")),
    ('instances = "2"', ("instances = '2'", "wanted is int", "given is str")),
    ("instances = 2.0", ("instances = 2.0", "wanted is int", "given is float")),
    ("instances = true", ("instances = True", "wanted is int", "given is bool")),
    ("reflection = 1", ("reflection = 1", "wanted is bool", "given is int")),
    ('drain_timeout_s = "1"', ("drain_timeout_s = '1'", "wanted is float", "given is str")),
    ("drain_timeout_s = nan", ("drain_timeout_s = nan", "at least 0")),
    ("backend = 1", ("backend = 1", "wanted is str", "given is int")),
    ('backend = "tensor"', ("backend = 'tensor'", "auto, tensorrt, onnxruntime")),
    ('model = "m.onnx"', ("model = 'm.onnx'", "wanted is a list")),
    ("model = [1]", ("model = 1", "wanted is str")),
    ("batching = 1", ("batching = 1", "wanted is a table")),
    ("instances = ", ("Invalid value",)),
    ("instances = 1\ninstances = 2", ("Cannot overwrite a value",)),
    ("\n= 1", ("line 2",)),
]


@pytest.mark.parametrize(("text", "words"), FILES, ids=[text for text, _ in FILES])
def test_a_file_that_cannot_be_followed_is_refused_with_its_name(
    refuses: Refuse, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    refuses(["--config", str(file)], str(file), *words)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(refuses: Refuse, tmp_path: Path) -> None:
    refuses(["--config", "/no/such.toml"], "/no/such.toml", "No such file")
    refuses(["--config", str(tmp_path)], str(tmp_path), "directory")
    (tmp_path / "server.toml").write_bytes(b"\xff")
    refuses(["--config", str(tmp_path / "server.toml")], "server.toml", "utf-8")


def test_a_file_in_place_of_a_repository_is_refused(refuses: Refuse, folder: Path) -> None:
    refuses(["--model-repository", str(folder / "m.onnx")], "m.onnx' is not a folder", "NAME/VERSION/model.onnx")


def test_one_missing_file_among_good_ones_is_refused(refuses: Refuse, folder: Path) -> None:
    refuses([str(folder / "m.onnx"), str(folder / "n.onnx")], "n.onnx' does not exist")


def test_a_folder_in_place_of_a_model_file_is_refused_with_the_option_for_folders(
    refuses: Refuse, folder: Path
) -> None:
    refuses([str(folder / "repository")], "is a folder", "--model-repository")


def test_an_address_that_is_taken_frees_the_other(folder: Path, taken: str) -> None:
    """A start that is refused in this process leaves nothing that listens."""
    with pytest.raises(ConfigError, match="Address already in use"):
        RunningServer(model_repository=(str(folder / "repository"),), grpc_address=taken)
    again = RunningServer(model_repository=(str(folder / "repository"),))
    again.stop()


def test_two_servers_cannot_share_a_port(folder: Path) -> None:
    first: Any = RunningServer(model_repository=(str(folder / "repository"),))
    try:
        for option, address in (("grpc_address", first.url), ("http_address", f"127.0.0.1:{first.app.http_port}")):
            with pytest.raises(ConfigError, match=f"{option} = '{address}' cannot be listened on"):
                RunningServer(model_repository=(str(folder / "repository"),), **{option: address})
    finally:
        first.stop()
