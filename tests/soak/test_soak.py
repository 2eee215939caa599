"""A server process under mixed load for a while: every answer right, every error the right one, no memory lost.

60 s by default; `./build.sh soak` takes 10 minutes, or SOAK_SECONDS.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import make_models
from tests.soak.kinds import Kinds
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.beside

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
WARM_UP_S = min(60.0, SECONDS / 4)
"""Time of calls as fast as they go, more at once than later: pools and caches then are as large as they will be."""

CALLS_PER_SECOND = 100.0
AT_ONCE_FIRST, AT_ONCE = 24, 8
MOST_GROWTH = 0.01


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with models that are inline and that are not, that fail, and that give large outputs."""
    files = {
        "double": make_models.scale(2.0),
        "threaded": make_models.convnet(size=16, channels=8, depth=2),
        "strings": make_models.identity(make_models.TensorProto.STRING),
        "gather": make_models.gather(),
        "wide": make_models.linear(features=1, classes=2**16),
    }
    paths = [str(make_models.save(model, tmp_path / f"{name}.onnx")) for name, model in files.items()]
    process = ServerProcess(*paths, "--stream-window=8")
    yield process
    process.close()


class Paced:
    """Gives way until the next call is due, `rate` times a second; what is late is not made up for."""

    def __init__(self, rate: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._step_s = 1 / rate
        self._due = self._loop.time()

    async def next(self) -> None:
        """Returns when the next call is due."""
        self._due = max(self._due + self._step_s, self._loop.time())
        due = self._loop.create_future()
        self._loop.call_at(self._due, due.set_result, None)
        await due


async def soak(server: ServerProcess) -> list[int]:
    """Calls of all kinds in turn for the time; the server's resident memory at each after the warm-up."""
    loop = asyncio.get_running_loop()
    warm = loop.time() + WARM_UP_S
    end = warm + SECONDS - WARM_UP_S
    memory = []
    pace = Paced(CALLS_PER_SECOND)
    async with Kinds(server) as kinds:
        forever = kinds.forever()

        async def worker(until: float, paced: bool) -> None:
            while loop.time() < until:
                if paced:
                    await pace.next()
                    memory.append(server.resident_bytes)
                await asyncio.wait_for(next(forever)(), 60)

        for until, at_once in ((warm, AT_ONCE_FIRST), (end, AT_ONCE)):
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(worker(until, until == end))
        kinds.check()
    return memory


def test_under_mixed_load_every_answer_is_right_and_memory_stays_what_it_was(server: ServerProcess) -> None:
    memory = asyncio.run(soak(server))
    part = len(memory) // 6
    steps = [statistics.median(memory[start : start + part]) for start in range(0, len(memory) - part + 1, part)]
    first, last = steps[0], steps[-1]
    print(f"MiB from {WARM_UP_S:g} s to {SECONDS:g} s:", *(f"{step / 2**20:.1f}" for step in steps))
    assert last < first * (1 + MOST_GROWTH)
    server.signal()
    assert server.wait() == 0
    assert "Traceback" not in server.log
