"""Lone requests through a real server: tensors stay where they lie, and what is cut off under a run fails it alone."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.integration.test_shared_memory import lie, register, shared_request
from tests.models import make_models
from tests.support.oip_client import Client, arrays_of, infer_request
from tests.support.running_server import RunningServer
from tests.support.server_process import ServerProcess
from tests.support.shared_object import SharedObject, shared_objects
from tests.support.watched_engine import Watch
from trtserve_server.models import loader
from trtserve_server.shared_memory import sigbus_guard

pytestmark = pytest.mark.skipif(bool(sigbus_guard.why_not()), reason=sigbus_guard.why_not())

FEATURES = 1 << 16
SIZE = 4 * FEATURES
INVALID = grpc.StatusCode.INVALID_ARGUMENT
X = np.ones((1, FEATURES), np.float32)


class Served:
    """A server with the model "double", whose tensors have 256 KiB, and whatever lies beside it."""

    on_the_loop = False
    """Whether it runs requests on the event loop's thread."""

    def __init__(self, server: RunningServer, watch: Watch) -> None:
        self.server = server
        self.watch = watch
        self.client = Client(server.url)

    def windows(self) -> dict[str, tuple[int, int]]:
        """Where the registered regions are mapped: first and last address, by name."""
        regions = self.server.app.codec._regions
        assert regions is not None
        views = {name: region.view(0, region.byte_size) for name, region in regions._regions.items()}
        return {
            name: (view.ctypes.data, view.ctypes.data + view.nbytes) for name, view in views.items() if view is not None
        }


@pytest.fixture(scope="module", params=[0, 1_000_000], ids=["on a thread", "on the loop"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("models")
    models = {"double": make_models.scale(2.0, FEATURES), "add": make_models.add(("batch", FEATURES))}
    paths = [str(make_models.save(proto, folder / f"{name}.onnx")) for name, proto in models.items()]
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "open_engine", watch.open_engine)
        server = RunningServer(model=tuple(paths), allow_client_shared_memory=True, inline_run_limit_us=request.param)
    served = Served(server, watch)
    served.on_the_loop = request.param > 0
    yield served
    served.client.close()
    server.stop()


@pytest.fixture
def served(running: Served) -> Iterator[Served]:
    running.watch.clear()
    yield running
    running.watch.rest()
    running.client.call("SystemSharedMemoryUnregister")


@pytest.fixture
def make() -> Iterator[Callable[[int], SharedObject]]:
    with shared_objects() as of_size:
        yield of_size


def placed_request(source: str = "in", target: str = "out", offset: int = 0, **fields: Any) -> Any:
    """Input at the beginning of one region, output at `offset` of another."""
    message = shared_request("double", X, SIZE, outputs=["y"], **fields)
    lie(message.inputs[0], source, SIZE)
    lie(message.outputs[0], target, SIZE, offset)
    return message


def test_a_lone_request_is_computed_without_a_copy(served: Served, make: Any) -> None:
    source, target = make(SIZE), make(SIZE + 64)
    register(served.client, source, "in")
    register(served.client, target, "out")
    windows = served.windows()
    for number in (1, 3):
        source.put(X * number)
        response = served.client.call("ModelInfer", placed_request(offset=64))
        np.testing.assert_array_equal(target.get(np.float32, X.shape, 64), 2 * number * X)
        assert served.watch.inputs == {"x": windows["in"][0]}
        assert served.watch.outputs == {"y": windows["out"][0] + 64}
        assert served.watch.copies == 0
        assert list(response.raw_output_contents) == [b""]
        assert response.outputs[0].parameters["shared_memory_byte_size"].int64_param == SIZE


def test_the_log_says_how_tensors_get_there(served: Served, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    shared = make(10)
    with caplog.at_level(logging.INFO, "trtserve_server.rpc.shared_memory"):
        register(served.client, shared, "in")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sigbus_guard, "MACHINES", ("another",))
            register(served.client, shared, "again")
    lines = [record.getMessage() for record in caplog.records if "shared memory region" in record.getMessage()]
    mapped, copied = (f"shared memory region {name!r} of key {shared.key!r} is registered;" for name in ("in", "again"))
    assert lines == [
        f"{mapped} tensors are read and written in place where they can be",
        f"{copied} tensors are copied: memory can be guarded on Linux on another only",
    ]


def test_large_tensors_in_place_are_run_alone_where_runs_are_quick(
    served: Served, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = make(SIZE), make(SIZE)
    register(served.client, source, "in")
    register(served.client, target, "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sigbus_guard, "MACHINES", ("another",))
        register(served.client, target, "copied")
    in_message = placed_request()
    del in_message.outputs[:]
    with caplog.at_level(logging.DEBUG, "trtserve_server.scheduling.batcher"):
        for message in (placed_request(), in_message, placed_request(target="copied")):
            served.client.call("ModelInfer", message)
    alone = ["on the loop (in place)" in record.getMessage() for record in caplog.records]
    assert alone == [served.on_the_loop, False, False]


def test_an_output_over_the_input_is_written_when_the_input_is_read(served: Served, make: Any) -> None:
    shared = make(SIZE)
    register(served.client, shared, "in")
    register(served.client, shared, "again")  # the same memory by another name
    for target in ("in", "again"):
        shared.put(X)
        served.client.call("ModelInfer", placed_request("in", target))
        np.testing.assert_array_equal(shared.get(np.float32, X.shape), 2 * X)
        first, last = served.windows()[target]
        assert not first <= served.watch.outputs["y"] < last


def cut_when_it_runs(served: Served, shared: SharedObject, size: int) -> None:
    served.watch.before_run = lambda: shared.truncate(size)


@pytest.mark.parametrize("size", [0, 4096, SIZE - 4096])
@pytest.mark.parametrize("which", ["in", "out"])
def test_a_region_that_is_cut_off_under_a_run_fails_the_request_and_no_other(
    served: Served, make: Any, which: str, size: int
) -> None:
    shared = {"in": make(SIZE), "out": make(SIZE), "more": make(2 * SIZE)}
    for name, each in shared.items():
        register(served.client, each, name)
    served.client.call("ModelInfer", placed_request())
    cut_when_it_runs(served, shared[which], size)
    error = served.client.error("ModelInfer", placed_request())
    assert error.code() == INVALID and f"region {which!r}" in error.details() and "shrunk" in error.details()
    assert served.watch.inputs and served.watch.copies == 0  # it was under way
    served.watch.rest()

    # The region stays broken, the server whole.
    assert "has shrunk" in served.client.error("ModelInfer", placed_request()).details()
    shared["more"].put(X)
    served.client.call("ModelInfer", placed_request("more", "more", SIZE))
    np.testing.assert_array_equal(shared["more"].get(np.float32, X.shape, SIZE), 2 * X)
    np.testing.assert_array_equal(served.client.infer(infer_request("double", {"x": X}))["y"], 2 * X)


def test_memory_that_is_back_after_the_run_does_not_hide_that_it_was_gone(served: Served, make: Any) -> None:
    source, target = make(SIZE), make(SIZE)
    register(served.client, source, "in")
    register(served.client, target, "out")
    source.put(X)

    cut_when_it_runs(served, source, 0)
    served.watch.after_run = lambda: source.truncate(SIZE)
    error = served.client.error("ModelInfer", placed_request())
    assert error.code() == INVALID and "was cut off while the request used it" in error.details()
    served.watch.rest()
    source.put(X)
    served.client.call("ModelInfer", placed_request())  # it is copied now, by calls
    np.testing.assert_array_equal(target.get(np.float32, X.shape), 2 * X)


def test_a_region_that_grows_or_loses_its_name_under_a_run_is_none_the_worse(served: Served, make: Any) -> None:
    source, target = make(SIZE), make(SIZE)
    register(served.client, source, "in")
    register(served.client, target, "out")
    source.put(X)

    def change() -> None:
        source.truncate(3 * SIZE)
        os.unlink(target.path)

    served.watch.before_run = change
    served.client.call("ModelInfer", placed_request())
    np.testing.assert_array_equal(target.get(np.float32, X.shape), 2 * X)


def test_a_region_that_is_unregistered_under_a_run_lives_until_its_end(served: Served, make: Any) -> None:
    source, target = make(SIZE), make(SIZE)
    register(served.client, source, "in")
    register(served.client, target, "out")
    source.put(X)
    other = Client(served.server.url)
    if not served.on_the_loop:  # which would not hear of it until the run's end
        served.watch.before_run = lambda: other.call("SystemSharedMemoryUnregister")
    served.client.call("ModelInfer", placed_request())
    np.testing.assert_array_equal(target.get(np.float32, X.shape), 2 * X)
    other.call("SystemSharedMemoryUnregister")
    other.close()
    served.server.wait_until(lambda: maps_of(source, target) == 2)  # those of this test


def maps_of(*shared: SharedObject) -> int:
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return sum(maps.count(each.path) for each in shared)


def test_a_thousand_regions_come_and_go_and_leave_nothing(served: Served, make: Any) -> None:
    source, target = make(SIZE), make(SIZE)

    def once() -> None:
        register(served.client, source, "in")
        register(served.client, target, "out")
        served.client.call("SystemSharedMemoryUnregister")

    once()
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), maps_of(source, target), len(sigbus_guard._ranges)
    for number in range(500):
        once()
        if number % 100 == 0:
            register(served.client, source, "in")
            register(served.client, target, "out")
            served.client.call("ModelInfer", placed_request())
            served.client.call("SystemSharedMemoryUnregister")
    served.server.wait_until(lambda: maps_of(source, target) == before[1])
    assert (len(os.listdir("/proc/self/fd")), len(sigbus_guard._ranges)) == (before[0], before[2])


LARGE = 1 << 22
"""Features of a tensor of 16 MiB, whose run takes long enough to be met in its midst."""


def test_a_server_outlives_clients_that_cut_their_memory_off_in_the_midst_of_runs(tmp_path: Path, make: Any) -> None:
    large = make_models.save(make_models.add((1, LARGE)), tmp_path / "add.onnx")
    small = make_models.save(make_models.scale(2.0), tmp_path / "small.onnx")
    process = ServerProcess(str(large), str(small), "--allow-client-shared-memory")
    try:
        client = Client(process.url)
        details = ""
        for number in range(200):
            details = cut_in_the_midst(client, make(8 * LARGE), f"r{number}")
            if "was cut off while the request used it" in details:
                break
            assert details == "" or "has shrunk" in details
        assert "was cut off while the request used it" in details
        x = np.ones((1, LARGE), np.float32)
        np.testing.assert_array_equal(client.infer(infer_request("add", {"a": x, "b": x}))["total"], 2 * x)
        client.close()
        process.signal()
        assert process.wait() == 0, process.log
    finally:
        process.close()


def cut_in_the_midst(client: Client, shared: SharedObject, name: str) -> str:
    """Sends a request, takes its memory away when its first result is there, and gives it back; the error's details."""
    register(client, shared, name)
    shared.put(np.ones(2, np.float32))
    zeros = np.zeros((1, LARGE), np.float32)
    message = infer_request("add", {"a": zeros, "b": zeros}, outputs=["total"])
    del message.raw_input_contents[:]
    for tensor in message.inputs:
        lie(tensor, name, 4 * LARGE)
    lie(message.outputs[0], name, 4 * LARGE, 4 * LARGE)
    future = client.future(message)
    beside = client.future(infer_request("small", {"x": np.ones((1, 4), np.float32)}))
    while not future.done() and shared.memory[4 * LARGE + 3] == 0:
        pass
    shared.truncate(0)
    shared.truncate(shared.size)
    client.call("SystemSharedMemoryUnregister", name=name)
    assert arrays_of(beside.result())["y"].tolist() == [[2.0] * 4]
    return future.details() or "" if future.exception() else ""
