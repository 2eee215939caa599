"""From a model to an engine: hit, miss, damage, failed checks, full disks, many at once, cancelled and killed."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from threading import Barrier, Event, Lock, Thread

import pytest

from tests.models import make_models as models
from tests.support.scripted_toolchain import GPU, PLAN, ScriptedToolchain
from tests.support.small_files import small_files
from trtserve_engines.errors import AccuracyError, BuildCancelledError, EngineError, EngineNotBuiltError, ModelFileError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.step import Cancel, Step, Watch
from trtserve_engines.tensorrt.build_config import BuildConfig
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.provide import provide_engine

WAIT_S = 60


@pytest.fixture
def model(tmp_path):
    return read_onnx_model(models.save(models.linear(), tmp_path / "model.onnx"))


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "cache")


def leftovers(cache):
    return [*os.listdir(cache.folder / "partial"), *os.listdir(cache.folder / "locks")]


def test_the_first_time_it_is_built_checked_and_kept(model, cache):
    steps = []
    toolchain = ScriptedToolchain(model)
    provided = provide_engine(toolchain, cache, Watch(lambda step: steps.append(str(step))))
    assert (toolchain.builds, provided.from_cache, provided.problem) == (1, False, "")
    assert steps == ["building 50 %, about 3 s left", "checking its accuracy"]
    (entry,) = cache.entries()
    assert entry.sidecar == replace(provided.sidecar, key=entry.sidecar.key)
    assert entry.sidecar.model_path == str(model.path)
    assert entry.sidecar.io == ({"name": "x"},)
    assert leftovers(cache) == []


def test_the_second_time_nothing_is_built(model, cache):
    provide_engine(ScriptedToolchain(model), cache, Watch())
    toolchain = ScriptedToolchain(model, on_build=pytest.fail)
    provided = provide_engine(toolchain, cache, Watch())
    assert (provided.from_cache, len(toolchain.engines)) == (True, 1)
    assert toolchain.checked == [provided.sidecar.accuracy]


def test_a_cached_engine_that_is_beyond_todays_tolerance_does_not_serve(model, cache):
    provide_engine(ScriptedToolchain(model), cache, Watch())

    def fail():
        raise AccuracyError("output 'y' is off")

    toolchain = ScriptedToolchain(model, on_check=fail)
    with pytest.raises(AccuracyError, match="output 'y' is off"):
        provide_engine(toolchain, cache, Watch())
    assert toolchain.engines[0].closed
    assert len(cache.entries()) == 1


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"config": BuildConfig(tf32=False)}, "build option tf32 changed: true -> false"),
        ({"tensorrt_version": "11.4.0.1"}, "TensorRT changed: 10.16.1.11 -> 11.4.0.1"),
        ({"gpu": replace(GPU, name="A10")}, "GPU changed: NVIDIA L4 -> A10"),
        ({"gpu": replace(GPU, driver_version=(12, 8))}, "CUDA driver changed: 13.0 -> 12.8"),
    ],
)
def test_whatever_differs_is_built_anew_and_said(model, cache, caplog, other, reason):
    caplog.set_level(logging.INFO, "trtserve_engines")
    provide_engine(ScriptedToolchain(model), cache, Watch())
    assert "the cache has no engine of this model" in caplog.text
    toolchain = ScriptedToolchain(model, **other)
    provide_engine(toolchain, cache, Watch())
    assert toolchain.builds == 1
    assert f"building an engine: {reason}" in caplog.text
    assert len(cache.entries()) == 2


def test_a_damaged_engine_is_set_aside_and_built_again(model, cache, caplog):
    provide_engine(ScriptedToolchain(model), cache, Watch())
    (entry,) = cache.entries()
    os.truncate(cache.folder / "engines" / entry.digest / "plan", 5)
    toolchain = ScriptedToolchain(model)
    assert not provide_engine(toolchain, cache, Watch()).from_cache
    assert toolchain.builds == 1
    assert "its plan has 5 bytes; 4000 were written; it was moved to" in caplog.text
    assert list(cache.damaged()) == [entry.digest]
    assert cache.verify(entry.digest) == ""


def test_a_cached_plan_that_tensorrt_refuses_is_set_aside_and_built_again(model, cache):
    provide_engine(ScriptedToolchain(model, plan=b"old"), cache, Watch())
    toolchain = ScriptedToolchain(model, refused=(b"old",))
    provided = provide_engine(toolchain, cache, Watch())
    assert (provided.from_cache, toolchain.builds) == (False, 1)
    assert list(cache.damaged().values()) == ["TensorRT does not take the plan"]


def test_where_no_build_is_allowed_only_what_is_cached_is_opened(model, cache):
    asked = Watch(may_build=False)
    with pytest.raises(EngineNotBuiltError, match="has no engine yet: the cache has no engine of this model"):
        provide_engine(ScriptedToolchain(model, on_build=pytest.fail), cache, asked)
    provide_engine(ScriptedToolchain(model), cache, Watch())
    assert provide_engine(ScriptedToolchain(model), cache, asked).from_cache


def test_a_model_that_changes_while_it_is_built_is_not_kept_under_its_old_digest(model, cache):
    toolchain = ScriptedToolchain(model, on_build=lambda: model.path.write_bytes(b"other"))
    with pytest.raises(ModelFileError, match="changed while its engine was built"):
        provide_engine(toolchain, cache, Watch())
    assert cache.entries() == []


@pytest.mark.parametrize("stage", ["on_build", "on_check"])
def test_what_fails_is_not_kept_and_frees_its_engine(model, cache, stage):
    def fail():
        raise EngineError("no")

    toolchain = ScriptedToolchain(model, **{stage: fail})
    with pytest.raises(EngineError, match="no"):
        provide_engine(toolchain, cache, Watch())
    assert all(engine.closed for engine in toolchain.engines)
    assert cache.entries() == []
    assert leftovers(cache) == []


def test_on_a_full_disk_the_engine_serves_and_the_reason_is_told(model, cache, caplog):
    with small_files(1000):
        provided = provide_engine(ScriptedToolchain(model), cache, Watch())
    assert "free space there" in provided.problem
    assert not provided.engine.closed
    assert "it serves, and is built again at the next start" in caplog.text
    assert cache.entries() == []
    assert leftovers(cache) == []


def test_of_many_at_once_one_builds(model, cache):
    waiting = [Event() for _ in range(3)]
    toolchains = []
    provided = []

    def wait_for_the_others():
        assert all(event.wait(WAIT_S) for event in waiting)

    def provide(on_progress, on_build):
        toolchains.append(ScriptedToolchain(model, on_build=on_build))
        provided.append(provide_engine(toolchains[-1], cache, Watch(on_progress)))

    building = Event()
    first = Thread(target=provide, args=(lambda _: None, lambda: (building.set(), wait_for_the_others())))
    first.start()
    assert building.wait(WAIT_S)
    others = []
    for event in waiting:

        def waits(progress, event=event):
            assert progress == Step("waiting for another process to build")
            event.set()

        others.append(Thread(target=provide, args=(waits, pytest.fail)))
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join(WAIT_S)
    assert sum(toolchain.builds for toolchain in toolchains) == 1
    assert sorted(result.from_cache for result in provided) == [False, True, True, True]


def test_waiting_for_another_ones_build_can_be_cancelled(model, cache):
    building, end, cancel = Event(), Event(), Cancel()
    toolchain = ScriptedToolchain(model, on_build=lambda: (building.set(), end.wait(WAIT_S)))
    thread = Thread(target=provide_engine, args=(toolchain, cache, Watch()))
    thread.start()
    assert building.wait(WAIT_S)
    with pytest.raises(BuildCancelledError, match="waiting for its engine was cancelled"):
        provide_engine(ScriptedToolchain(model, on_build=pytest.fail), cache, Watch(lambda _: cancel.set(), cancel))
    end.set()
    thread.join(WAIT_S)
    assert len(cache.entries()) == 1


def most_builds_at_once(cache, folder, gpus):
    """Builds a model for each of these GPUs at the same time, each build as long as some model has neither begun its
    own nor said that it waits: the most that went on at once."""
    arrived, running, counts, lock = Barrier(len(gpus)), 0, [], Lock()

    def provide(number, gpu):
        model = read_onnx_model(models.save(models.scale(float(number)), folder / f"{number}.onnx"))
        waited = Event()

        def arrive():
            if not waited.is_set():
                waited.set()
                arrived.wait(WAIT_S)

        def on_build():
            nonlocal running
            with lock:
                running += 1
                counts.append(running)
            arrive()
            with lock:
                running -= 1

        def on_step(step):
            if step.name.startswith("waiting"):
                arrive()

        provide_engine(ScriptedToolchain(model, gpu_uuid=gpu, on_build=on_build), cache, Watch(on_step))

    threads = [Thread(target=provide, args=each) for each in enumerate(gpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(cache.entries()) == len(gpus)
    assert leftovers(cache) == []
    return max(counts)


@pytest.mark.parametrize(
    ("gpus", "most"), [(["GPU-0"] * 4, 1), (["GPU-0", "GPU-1"], 2), (["GPU-0", "GPU-1", "GPU-0", "GPU-1"], 2)]
)
def test_each_gpu_builds_one_engine_at_a_time(cache, tmp_path, gpus, most):
    assert most_builds_at_once(cache, tmp_path, gpus) == most


def test_waiting_for_the_gpu_is_told_and_can_be_cancelled(model, cache, tmp_path):
    building, end, cancel, steps = Event(), Event(), Cancel(), []
    first = ScriptedToolchain(model, on_build=lambda: (building.set(), end.wait(WAIT_S)))
    thread = Thread(target=provide_engine, args=(first, cache, Watch()))
    thread.start()
    assert building.wait(WAIT_S)
    other = read_onnx_model(models.save(models.scale(2.0), tmp_path / "other.onnx"))

    def on_step(step):
        steps.append(str(step))
        cancel.set()

    with pytest.raises(BuildCancelledError, match="waiting for its GPU was cancelled"):
        provide_engine(ScriptedToolchain(other, on_build=pytest.fail), cache, Watch(on_step, cancel))
    assert steps == ["waiting for another build on this GPU"]
    end.set()
    thread.join(WAIT_S)
    assert len(cache.entries()) == 1
    assert leftovers(cache) == []


PROCESS = """
import sys
from pathlib import Path
from tests.support.scripted_toolchain import ScriptedToolchain
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.engine_cache import EngineCache
from trtserve_engines.tensorrt.provide import provide_engine
from trtserve_engines.step import Watch

model = read_onnx_model(Path(sys.argv[1]))
toolchain = ScriptedToolchain(model, on_build=lambda: (print("building", flush=True), sys.stdin.readline()))
cache = EngineCache(Path(sys.argv[2]))
waits = lambda progress: print(progress, flush=True)
provided = provide_engine(toolchain, cache, Watch(waits))
print("built" if toolchain.builds else "found", flush=True)
"""


@pytest.fixture
def process(model, cache, root):
    """Starts a process that provides the engine and, in the middle of the build, waits for a line."""
    processes = []

    def start():
        command = [sys.executable, "-c", PROCESS, str(model.path), str(cache.folder)]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        processes.append(started)
        return started

    yield start
    for started in processes:
        started.kill()
        started.communicate()


def line(process, *expected):
    lines = iter(process.stdout.readline, "")
    return next(text.strip() for text in lines if text.strip() in expected)


def test_of_many_processes_one_builds(process):
    first = process()
    line(first, "building")
    others = [process() for _ in range(2)]
    for other in others:
        line(other, "waiting for another process to build")
    first.stdin.write("\n")
    first.stdin.flush()
    assert line(first, "built", "found") == "built"
    assert [line(other, "built", "found") for other in others] == ["found", "found"]


def test_when_the_one_that_builds_is_killed_another_takes_over_and_nothing_is_left(process, cache):
    first = process()
    line(first, "building")
    second = process()
    line(second, "waiting for another process to build")
    first.kill()
    line(second, "building")
    second.stdin.write("\n")
    second.stdin.flush()
    assert line(second, "built", "found") == "built"
    second.wait(WAIT_S)
    assert leftovers(cache) == []
    assert bytes(cache.find(_key(cache)).plan) == PLAN


def _key(cache):
    from trtserve_engines.tensorrt.engine_key import EngineKey

    return EngineKey(cache.entries()[0].sidecar.key)
