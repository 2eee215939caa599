"""Builds of a serving server, on the simulation: shown while they run, swapped in, cancelled, shared, and killed."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.models import make_models as models
from tests.simulation.fake_cuda import FakeCuda
from tests.support.oip_client import Client, infer_request
from tests.support.running_server import RunningServer
from tests.support.server_process import ServerProcess
from trtserve_engines.tensorrt.tensorrt_config import TensorRtConfig

pytestmark = pytest.mark.simulated

PROTO = models.linear()
ROWS = np.ones((2, 16), np.float32)
WAIT_S = 60.0
QUICK = TensorRtConfig(accuracy_runs=1)


@pytest.fixture(autouse=True)
def nothing_is_left_on_the_gpu(cuda: FakeCuda) -> None:
    """The fixture `cuda` looks."""


class BuildGate:
    """Holds every build in its middle, in whatever process it runs, until it is opened."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path

    def open(self) -> None:
        """Waits until a build is held, and lets it go."""
        with open(self._path, "wb"):
            pass

    def wait(self) -> None:
        """Waits until a build is held; it stays so until the next call of `open`, or its end."""
        self._held = open(self._path, "wb", buffering=0)  # noqa: SIM115

    def wait_for_the_end(self) -> None:
        """Waits until the process of the build that was waited for is gone."""
        poll = select.poll()
        poll.register(self._held, 0)  # the end of the reader is told without being asked for
        assert poll.poll(WAIT_S * 1000)
        self._held.close()

    def let_go(self) -> None:
        """Lets the build that was waited for go on."""
        self._held.close()

    def let_through(self) -> None:
        """Lets go whatever is held now, if anything is."""
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_NONBLOCK))


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildGate:
    monkeypatch.setenv("SIMULATED_TENSORRT_BUILD_GATE", str(tmp_path / "gate"))
    return BuildGate(tmp_path / "gate")


@pytest.fixture
def start(tmp_path: Path, serve: Callable[..., RunningServer]) -> Iterator[Callable[..., tuple[RunningServer, Client]]]:
    """Starts servers of the model "m" with TensorRT, each with a client."""
    clients: list[Client] = []
    path = models.save(PROTO, tmp_path / "m.onnx")

    def go(**options: object) -> tuple[RunningServer, Client]:
        defaults = {"backend": "tensorrt", "engine_cache": str(tmp_path / "cache"), "tensorrt": QUICK}
        server = serve(model=(str(path),), **{**defaults, **options})
        clients.append(Client(server.url))
        return server, clients[-1]

    yield go
    for client in clients:
        client.close()


def leftovers(folder: Path) -> list[str]:
    return [*os.listdir(folder / "partial"), *os.listdir(folder / "locks"), *os.listdir(folder / "damaged")]


def backend(client: Client) -> str:
    return client.call("ModelMetadata", name="m").parameters["backend"].string_param


def building(client: Client) -> str:
    return client.call("ModelMetadata", name="m").parameters["building"].string_param


# ---- shown ----


def test_a_build_is_shown_wherever_one_looks(start, gate, caplog):
    caplog.set_level("INFO")
    server, client = start(loaded=False)
    gate.wait()
    server.wait_until(lambda: any(entry.step for entry in server.app.registry.entries()))
    state, reason = client.states()["m"]
    assert state == "LOADING"
    assert reason.startswith("building ")
    assert next(client.watch("m")) == "NOT_SERVING"
    server.wait_until(lambda: "m/1: building 11 %" in caplog.text)
    request = infer_request("m", {"x": ROWS})
    for error in (client.error("ModelInfer", request), client.error("ModelMetadata", name="m")):
        assert error.code().name == "UNAVAILABLE"
        assert re.search(r"is loading \(building .*\); send again later", error.details())
    text = urllib.request.urlopen(server.metrics_url).read().decode()
    assert re.search(r'^trtserve_engine_build_progress\{model="m",version="1"\} [01](\.\d+)?$', text, re.MULTILINE)
    gate.let_go()
    server.wait_until(lambda: server.app.ready, WAIT_S)
    assert client.states()["m"] == ("READY", "")
    text = urllib.request.urlopen(server.metrics_url).read().decode()
    assert "trtserve_engine_build_progress{" not in text
    assert client.infer(infer_request("m", {"x": ROWS}))["y"].shape == (2, 8)


# ---- the CPU serves meanwhile ----


def test_the_cpu_serves_until_the_engine_takes_its_place_without_a_lost_request(start, gate, tmp_path):
    server, client = start(while_building="serve-on-cpu")
    assert client.states()["m"][0] == "READY"
    assert backend(client) == "onnxruntime"
    gate.wait()
    server.wait_until(lambda: any(entry.step for entry in server.app.registry.entries()))
    assert building(client).startswith("building ")
    assert client.states()["m"][1].startswith("building ")
    answers, wrong, end = [], [], threading.Event()
    expected = client.infer(infer_request("m", {"x": ROWS}))["y"]

    def call() -> None:
        mine = Client(server.url)
        while not end.is_set():
            try:
                answers.append(np.abs(mine.infer(infer_request("m", {"x": ROWS}))["y"] - expected).max())
            except Exception as error:
                wrong.append(error)
        mine.close()

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    gate.let_go()
    server.wait_until(lambda: server.app.registry.find("m").backend == "tensorrt", WAIT_S)
    after = len(answers)
    server.wait_until(lambda: len(answers) > after + 20, WAIT_S)
    end.set()
    for caller in callers:
        caller.join()
    assert wrong == []
    assert max(answers) < 1e-4
    assert (backend(client), building(client)) == ("tensorrt", "")
    assert client.states()["m"] == ("READY", "")
    assert leftovers(tmp_path / "cache") == []


def test_with_a_warm_cache_the_cpu_never_serves(start):
    server, _ = start()
    server.stop()
    server, client = start(while_building="serve-on-cpu")
    assert backend(client) == "tensorrt"


def test_where_the_engine_fails_the_cpu_serves_on_and_says_why(start, tmp_path):
    server, client = start(while_building="serve-on-cpu", tensorrt=TensorRtConfig(precision="fp16", max_error=1e-12))
    server.wait_until(lambda: "CPU serves on" in next(server.app.registry.entries()).note, WAIT_S)
    state, reason = client.states()["m"]
    assert state == "READY"
    assert "the CPU serves on, because its engine failed: the engine differs from ONNX Runtime" in reason
    assert backend(client) == "onnxruntime"
    assert client.infer(infer_request("m", {"x": ROWS}))["y"].shape == (2, 8)
    assert leftovers(tmp_path / "cache") == []


# ---- several at once ----


@pytest.fixture
def two_models(serve: Callable[..., RunningServer], gate: BuildGate, tmp_path: Path) -> Callable[..., list[str]]:
    """Serves two models on these devices and holds their builds: what the index then says of each."""

    def start(*devices: str) -> list[str]:
        for number, device in enumerate(devices):
            folder = tmp_path / "repository" / f"m{number}"
            models.save(models.scale(float(number)), folder / "1" / "model.onnx")
            (folder / "model.toml").write_text(f'device = "{device}"\n')
        server = serve(
            model_repository=(str(tmp_path / "repository"),),
            backend="tensorrt",
            engine_cache=str(tmp_path / "cache"),
            tensorrt=QUICK,
            loaded=False,
        )
        entries = server.app.registry.entries
        gate.wait()
        # A look at what other processes do comes before, and may see the other's for a moment.
        settled = ("building 11 %", "waiting for another build on this GPU")
        server.wait_until(lambda: all(str(each.step).startswith(settled) for each in entries()))
        steps = sorted(str(each.step).partition(",")[0] for each in entries())
        gate.let_go()
        server.wait_until(lambda: gate.let_through() or server.app.ready, WAIT_S)
        server.stop()
        return steps

    return start


@pytest.mark.simulated(FAKE_CUDA_DEVICES="2")
def test_two_gpus_build_at_the_same_time(two_models):
    assert two_models("gpu:0", "gpu:1") == ["building 11 %", "building 11 %"]


@pytest.mark.simulated(FAKE_CUDA_DEVICES="2")
def test_on_one_gpu_a_build_waits_for_the_other(two_models):
    assert two_models("gpu:1", "gpu:1") == ["building 11 %", "waiting for another build on this GPU"]


# ---- cancelled, shared, killed ----


@pytest.mark.parametrize("while_building", ["wait", "serve-on-cpu"])
def test_a_server_that_stops_ends_its_build_and_leaves_nothing(start, gate, tmp_path, while_building):
    server, _ = start(loaded=False, while_building=while_building)
    gate.wait()
    server.stop()
    gate.wait_for_the_end()
    server.app._executors[2].shutdown()  # its thread may still be putting away what it had
    assert leftovers(tmp_path / "cache") == []
    assert os.listdir(tmp_path / "cache" / "engines") == []


def test_unloading_what_the_cpu_serves_ends_the_build(start, gate, serve, tmp_path):
    models.save(PROTO, tmp_path / "repository" / "m" / "1" / "model.onnx")
    server = serve(
        model_repository=(str(tmp_path / "repository"),),
        model_control_mode="explicit",
        load_model=("*",),
        backend="tensorrt",
        while_building="serve-on-cpu",
        engine_cache=str(tmp_path / "cache"),
    )
    client = Client(server.url)
    gate.wait()
    client.call("RepositoryModelUnload", model_name="m")
    gate.wait_for_the_end()
    assert client.states()["m"] == ("UNAVAILABLE", "unloaded")
    server.wait_until(lambda: not server.app.registry.builds(), WAIT_S)
    server.stop()
    server.app._executors[2].shutdown()
    assert leftovers(tmp_path / "cache") == []
    client.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[], ServerProcess]]:
    """Starts server processes on one cache; they end with the test."""
    processes: list[ServerProcess] = []
    path = models.save(PROTO, tmp_path / "m.onnx")

    def go() -> ServerProcess:
        options = ("--backend=tensorrt", f"--engine-cache={tmp_path / 'cache'}", "--tensorrt-accuracy-runs=1")
        processes.append(ServerProcess(str(path), *options, module="trtserve_server"))
        return processes[-1]

    yield go
    for started in processes:
        started.close()


def test_of_servers_that_start_at_once_one_builds(process, gate):
    servers = [process() for _ in range(3)]
    gate.open()
    assert all("READY" in server.banner for server in servers)
    assert sum(server.log.count("engine built in") for server in servers) == 1


def test_a_server_killed_in_a_build_takes_the_build_along_and_the_next_one_builds(process, gate, tmp_path):
    first = process()
    gate.wait()
    first.signal(signal.SIGKILL)
    first.wait()
    gate.wait_for_the_end()
    second = process()
    gate.open()
    assert "READY" in second.banner
    assert leftovers(tmp_path / "cache") == []
    assert len(os.listdir(tmp_path / "cache" / "engines")) == 1


def test_a_build_process_that_is_killed_is_a_reason_and_the_server_lives(start, monkeypatch):
    monkeypatch.setenv("SIMULATED_TENSORRT_BUILD_CRASH", "SIGKILL")
    _, client = start()
    state, reason = client.states()["m"]
    assert state == "UNAVAILABLE"
    assert "was ended by SIGKILL" in reason
    assert client.call("ServerLive").live
