"""Watches the server while it is under load: its own statistics, its process on this machine, the GPUs, this machine.

What cannot be seen is left out: a server without statistics, on another machine, or without a GPU is no error.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from trtserve_client.client import Client
from trtserve_client.errors import ClientError, ServerError
from trtserve_client.load.gpu import GpuUse, GpuWatch
from trtserve_client.load.jobs import Window
from trtserve_client.load.results import ServerUse

_PHASES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class _Snapshot:
    """Counters at one time."""

    time: float
    phases_ns: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    batches: dict[int, int] = field(default_factory=dict)
    cpu_s: float = 0.0
    memory_bytes: int = 0
    machine_busy_s: float = 0.0
    gpu: GpuUse = field(default_factory=GpuUse)
    has_statistics: bool = False


class Observer:
    """Takes a snapshot per bucket of the window, on a thread of its own, from `start` to `stop`."""

    def __init__(self, client: Client, model: str, version: str, pid: int, gpus: GpuWatch) -> None:
        self._client, self._model, self._version = client, model, version
        self._process = _process(pid)
        self._gpus = gpus
        self._unknown = ""
        self._snapshots: list[_Snapshot] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def server_is_here(self) -> bool:
        """Whether the server is a process of this machine that can be looked at."""
        return self._process is not None

    def start(self, window: Window) -> None:
        """Begins to look, at the time that measuring begins."""
        self._snapshots, self._stop = [], threading.Event()
        self._window = window
        self._thread = threading.Thread(target=self._watch, args=(window, self._stop), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Takes the last look."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def machine_cpu(self) -> float:
        """Share of all CPUs that was busy, by whomever."""
        first, last = self._ends()
        seconds = last.time - first.time
        busy = (last.machine_busy_s - first.machine_busy_s) / (psutil.cpu_count() or 1)
        # The system counts in ticks, by which a full machine can come out a little above full.
        return min(1.0, busy / seconds) if seconds else 0.0

    def server_use(self) -> ServerUse:
        """What was seen of the server between the first look and the last."""
        # A server that ended while it was watched used nothing any more.
        seen = [each for each in self._snapshots if each.memory_bytes] or self._snapshots[:1]
        first, last = seen[0], seen[-1]
        seconds = last.time - first.time
        return ServerUse(
            **self._by_statistics(),
            cpu_share=(last.cpu_s - first.cpu_s) / seconds if seconds else 0.0,
            memory_bytes=max(each.memory_bytes for each in self._snapshots),
            gpu_share=sum(each.gpu.share for each in self._snapshots) / len(self._snapshots),
            gpu_memory_bytes=max(each.gpu.memory_bytes for each in self._snapshots),
        )

    def _by_statistics(self) -> dict[str, Any]:
        """What the server's own statistics say between the first that came and the last, or why they say nothing."""
        known = self._with_statistics()
        if len(known) < 2:
            return {"unknown": f"the server's statistics cannot be had, {self._unknown}"}
        first, last = known[0], known[-1]
        requests = last.requests - first.requests
        sizes = _difference(last.batches, first.batches)
        batches = sum(sizes.values())
        phases = {name: last.phases_ns[name] - first.phases_ns.get(name, 0) for name in last.phases_ns}
        return {
            "phases_ms": {name: ns / requests / 1e6 for name, ns in phases.items()} if requests > 0 else {},
            "batch": sum(size * count for size, count in sizes.items()) / batches if batches else 0.0,
            "batch_sizes": {str(size): count for size, count in sorted(sizes.items())},
        }

    def _with_statistics(self) -> list[_Snapshot]:
        # A server that is too busy to tell may tell at the next look.
        return [each for each in self._snapshots if each.has_statistics]

    def batches(self) -> dict[int, float]:
        """Mean rows in a batch, by the number of the window's bucket."""
        means: dict[int, float] = {}
        for before, after in itertools.pairwise(self._with_statistics()):
            sizes = _difference(after.batches, before.batches)
            if count := sum(sizes.values()):
                number = int((before.time - self._window.measured) / self._window.bucket_s + 0.5)
                means[number] = sum(size * each for size, each in sizes.items()) / count
        return means

    def _ends(self) -> tuple[_Snapshot, _Snapshot]:
        return self._snapshots[0], self._snapshots[-1]

    def _watch(self, window: Window, stop: threading.Event) -> None:
        next_look = window.measured
        stop.wait(next_look - time.monotonic())
        while True:
            self._snapshots.append(self._look())
            next_look += window.bucket_s
            if stop.wait(max(0.0, next_look - time.monotonic())) or next_look > window.ends + window.bucket_s / 2:
                break
        if len(self._snapshots) == 1 or next_look <= window.ends:
            self._snapshots.append(self._look())

    def _look(self) -> _Snapshot:
        snapshot = _Snapshot(time.monotonic())
        times = psutil.cpu_times()
        snapshot.machine_busy_s = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        with suppress(psutil.Error):
            self._look_at_process(snapshot)
        self._look_at_statistics(snapshot)
        snapshot.gpu = self._gpus.use()
        return snapshot

    def _look_at_process(self, snapshot: _Snapshot) -> None:
        if self._process is None:
            return
        for process in (self._process, *self._process.children(recursive=True)):
            times = process.cpu_times()
            snapshot.cpu_s += times.user + times.system
            snapshot.memory_bytes += process.memory_info().rss

    def _look_at_statistics(self, snapshot: _Snapshot) -> None:
        try:
            found = self._client.model_statistics(self._model, self._version, timeout_s=2.0)
        except ServerError as error:
            self._unknown = f"{error.code.name}: {error.details}"
            return
        except ClientError as error:
            self._unknown = str(error)
            return
        snapshot.has_statistics = True
        for model in found:
            _add_statistics(snapshot, model)


def _add_statistics(snapshot: _Snapshot, model: Any) -> None:
    snapshot.requests += model.inference_stats.success.count
    for name in _PHASES:
        ns = getattr(model.inference_stats, name).ns
        snapshot.phases_ns[name] = snapshot.phases_ns.get(name, 0) + ns
    for batch in model.batch_stats:
        snapshot.batches[batch.batch_size] = snapshot.batches.get(batch.batch_size, 0) + batch.compute_infer.count


def _difference(after: dict[int, int], before: dict[int, int]) -> dict[int, int]:
    counts = {size: count - before.get(size, 0) for size, count in after.items()}
    return {size: count for size, count in counts.items() if count > 0}


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.Error):
        return psutil.Process(pid) if pid else None
    return None


def listening_pid(url: str) -> int:
    """The process of this machine that listens at the URL; 0 where none is seen."""
    target = url.rpartition("://")[2]
    with suppress(psutil.Error, OSError):
        if url.startswith("unix:"):
            path = url.removeprefix("unix:").removeprefix("//")
            return _first_pid(each.pid for each in psutil.net_connections("unix") if each.laddr == path)
        host, _, port = target.rpartition(":")
        if host.startswith("127.") or host in ("localhost", "[::1]") or host in _own_addresses():
            return _first_pid(
                each.pid
                for each in psutil.net_connections("tcp")
                if each.status == psutil.CONN_LISTEN and each.laddr.port == int(port)
            )
    return 0


def _first_pid(pids: Iterable[int | None]) -> int:
    return next(filter(None, pids), 0) or 0


def _own_addresses() -> set[str]:
    return {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
