"""The build process: reads a job from its input, rewrites and builds, sends progress and log lines back, and ends.

It ends too, with whatever it has started, when its parent does: the parent holds the other end of its input.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import BuildError, EngineError
from trtserve_engines.onnx_model import read_onnx_model
from trtserve_engines.tensorrt.build_job import BuildJob, message_of_error
from trtserve_engines.tensorrt.builder import BuiltPlan, build_plan
from trtserve_engines.tensorrt.import_tensorrt import import_tensorrt
from trtserve_engines.tensorrt.progress import Progress
from trtserve_engines.tensorrt.recipes import RecipeResult, apply_recipe

_STDIN = 0
_LEAST_INTERVAL_S = 0.1


class Channel:
    """The pipe to the parent. Any thread may send."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", buffering=1)
        self._lock = threading.Lock()
        self._last_progress = 0.0

    def send(self, **message: Any) -> None:
        """One message."""
        with self._lock:
            self._file.write(json.dumps(message) + "\n")

    def progress(self, progress: Progress) -> bool:
        """Sends the progress unless the last one was sent just now; TensorRT tells of thousands of steps."""
        now = time.monotonic()
        if progress.fraction == 1 or now - self._last_progress >= _LEAST_INTERVAL_S:
            self._last_progress = now
            self.send(progress=list(progress))
        return True


class _ChannelHandler(logging.Handler):
    """Sends what is logged to the parent."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send(level=record.levelno, log=record.getMessage())


def main() -> None:
    """`build_worker CHANNEL PLAN SCRATCH`: two inherited file descriptors and a folder; the job is on the input."""
    channel, plan_descriptor, scratch = Channel(int(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3])
    job = BuildJob.from_json(_read_line())
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()
    _log_to(channel)
    channel.send(**_result(lambda: _run(job, channel, plan_descriptor, scratch)))


def _result(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `step` gives, or its error, as a message. With the error go the objects of TensorRT that it held."""
    try:
        return step()
    except EngineError as error:
        return message_of_error(error)
    except Exception as error:  # a defect: its place goes to the error output, which the parent shows
        traceback.print_exc()
        return message_of_error(BuildError(f"the build failed unexpectedly: {type(error).__name__}: {error}"))


def _run(job: BuildJob, channel: Channel, plan_descriptor: int, scratch: Path) -> dict[str, Any]:
    driver = open_driver(job.cuda_driver)  # before the recipe, which may take minutes
    channel.send(progress=list(Progress(0.0, f"preparing the graph ({job.config.precision})", 0.0, None)))
    recipe = apply_recipe(read_onnx_model(job.model), job.config, scratch)
    device = driver.open(job.gpu)
    try:
        return _result(lambda: _build(job, recipe, channel, plan_descriptor))
    finally:
        device.close()


def _build(job: BuildJob, recipe: RecipeResult, channel: Channel, plan_descriptor: int) -> dict[str, Any]:
    built = build_plan(
        import_tensorrt(), recipe.path, job.config, timing_cache=job.timing_cache, on_progress=channel.progress
    )
    _write(built, plan_descriptor)
    return {
        "done": True,
        "timing_cache": built.timing_cache.hex(),
        "tensorrt_version": built.tensorrt_version,
        "seconds": built.seconds,
        "warnings": list(built.warnings),
        "recipe_tool": recipe.tool,
    }


def _write(built: BuiltPlan, descriptor: int) -> None:
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(built.plan)
    except OSError as error:
        raise BuildError(
            f"the plan of {built.plan.nbytes} bytes cannot be written to the work folder: {error.strerror}; free space"
            " there or choose another one"
        ) from error


def _log_to(channel: Channel) -> None:
    logger = logging.getLogger("trtserve_engines")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(_ChannelHandler(channel))
    logger.propagate = False


def _read_line() -> str:
    """The first line of the input, without the buffers of sys.stdin, which may not be waited on when Python ends."""
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(_STDIN, 1 << 16)
        if not piece:
            raise SystemExit("the parent ended before it said what to build")
        data += piece
    return data.decode()


def _end_with_parent(scratch: Path) -> None:
    while os.read(_STDIN, 1):  # ends when the parent's end of the pipe is closed, however that came about
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
