"""trtserve-load against NVIDIA's own Triton, for the CPU, which nvidia-pytriton brings as a wheel.

The wheel is large, so it is fetched by `./build.sh test interop` alone; the whole suite skips this by name without it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models import make_models
from tests.support.environments import ROOT, RegistryUnreachable, environment
from tests.support.running_server import RunningServer
from trtserve_client.load.cli import main

REQUIREMENTS = ["nvidia-pytriton==0.7.0"]
TOKEN = "token"
KNOWN = ("--metadata", f"triton-grpc-protocol-triton-access-token={TOKEN}")
QUICK = ("--duration-s", "0.6", "--warmup-s", "0.2", "--workers", "1")

Measure = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a Triton in a process of its own."""
    wanted = os.environ.get("REQUIRE_STOCK_CLIENTS")
    if not wanted and not (ROOT / ".venv-pytriton").exists():
        pytest.skip("Triton's wheel takes 370 MB and is not here; ./build.sh test interop fetches it")
    try:
        python = environment("pytriton", REQUIREMENTS)
    except RegistryUnreachable as error:
        pytest.skip(f"nvidia-pytriton cannot be installed here: {error}")
    grpc_port, http_port = _free_ports(2)
    log = tmp_path_factory.mktemp("triton") / "log"
    # The wheel's program for Python models looks for the interpreter's library, which need not be the system's.
    libraries = os.pathsep.join(filter(None, (sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH"))))
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [python, Path(__file__).with_name("triton_server.py"), str(grpc_port), str(http_port), TOKEN],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        if "ready\n" not in process.stdout:
            pytest.fail(f"Triton does not start:\n{log.read_text()[-3000:]}")
        yield f"127.0.0.1:{grpc_port}"
        process.stdin.close()
        process.wait(60)


@pytest.fixture
def measure(triton: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Measure:
    """Runs trtserve-load and gives what it wrote as JSON, with its output."""

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        path = tmp_path / "result.json"
        assert main([*words, "--json", str(path)]) == code, capsys.readouterr().err
        with capsys.disabled():
            print(f"\ntrtserve-load {' '.join(words)}\n{(output := capsys.readouterr()).out}")
        return {**json.loads(path.read_text() or "{}"), "output": output.out, "problems": output.err}

    return run


@pytest.mark.parametrize(
    "load",
    [
        ("--concurrency", "1,8"),
        ("--streams", "2", "--in-flight", "4"),
        ("--shared-memory", "--concurrency", "4"),
        ("--shared-memory", "--streams", "1", "--in-flight", "4"),
        ("--rate", "50"),
        ("--concurrency", "2", "--rows", "8"),
    ],
    ids=" ".join,
)
def test_every_kind_of_load(triton: str, measure: Measure, load: tuple[str, ...]) -> None:
    document = measure("double", "--url", triton, *load, *KNOWN, *QUICK)
    assert document["environment"]["server"].startswith("triton 2.")
    for level in document["levels"]:
        (run,) = level["runs"]
        assert run["answered"] > 0
        assert run["errors"] == {}
        assert run["server"]["phases_ms"]["compute_infer"] > 0
        assert run["server"]["batch"] >= 1
        assert run["server"]["memory_bytes"] > 0


def test_the_search_for_its_capacity(triton: str, measure: Measure) -> None:
    words = ("--find-capacity", "--p99-ms", "100", "--duration-s", "0.3", "--warmup-s", "0.1", "--workers", "1")
    document = measure("double", "--url", triton, *words, *KNOWN)
    assert document["capacity"] > 0


def test_who_does_not_know_the_token_is_told_what_is_missing(
    triton: str, measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    document = measure("double", "--url", triton, "--concurrency", "1", *QUICK)
    assert "No phases and no batch sizes. 1 at once: the server's statistics cannot be had" in document["output"]
    assert "expecting header 'triton-grpc-protocol-triton-access-token'" in document["output"]
    assert main(["double", "--url", triton, "--shared-memory"]) == 1
    assert "refuses the memory: This protocol is restricted" in capsys.readouterr().err


def test_its_answers_tell_no_timing(triton: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["double", "--url", triton, "--timing"]) == 1
    assert "go without --timing" in capsys.readouterr().err


def test_it_beside_ours(triton: str, measure: Measure, tmp_path: Path) -> None:
    model = make_models.save(make_models.scale(2.0, 16), tmp_path / "double.onnx")
    ours = RunningServer(model=(str(model),), allow_client_shared_memory=True)
    plan = tmp_path / "plan.toml"
    targets = "".join(
        f'[[target]]\nname = "{name}, {way}"\nurl = "{url}"\n{more}\n'
        for name, url in (("triton", triton), ("trtserve", ours.url))
        for way, more in (
            ("unary", "concurrency = 4"),
            ("stream", "streams = 1\nin_flight = 4"),
            ("shm", "concurrency = 4\nshared_memory = true"),
        )
    )
    plan.write_text(
        f'[load]\nmodel = "double"\nmetadata = "{KNOWN[1]}"\nduration_s = 0.5\nwarmup_s = 0.2\nrepeats = 3\n{targets}'
    )
    try:
        document = measure("compare", str(plan))
    finally:
        ours.stop()
    assert len(document["levels"]) == 6
    assert all(run["errors"] == {} and run["answered"] for level in document["levels"] for run in level["runs"])
    assert re.search(r"trtserve, shm +\d+\.\d+ \(\d+\.\d+ to \d+\.\d+\)", document["output"])


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at: Triton takes no port of the system's choice."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
