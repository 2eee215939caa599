"""What trtserve-load can be told: a frozen dataclass that checks itself. Flags, plan files and help derive from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, fields
from typing import Any

from trtserve_client.load.errors import UsageError

ARRIVALS = ("poisson", "constant")
TRANSPORTS = ("in-process", "uds", "grpc", "stream", "shm")


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    """A field with its help text, its choices and what stands for its value in the help."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})


_MOST_WORKERS = 256
"""Processes, each with a Python of its own: thousands would take all the memory of the machine."""


@dataclass(frozen=True)
class LoadConfig:
    """A measurement: where, which load, what is sent, how long, and where the results go."""

    model: str = option("", "the model to call")
    url: str = option("127.0.0.1:8001", "host:port, grpcs://host:port or unix:/path of the server")
    version: str = option("", "one version instead of the one that the server would choose")
    concurrency: tuple[int, ...] = option((), "closed loop: so many requests are always under way; 1,4,16 by default")
    rate: tuple[float, ...] = option((), "open loop: requests per second, whether answers come or not")
    arrivals: str = option("poisson", "how an open loop spaces its requests", choices=ARRIVALS)
    trace: str = option(
        "", "open loop: replay this JSON-lines file, at_s and optional inputs in each line", metavar="FILE"
    )
    find_capacity: bool = option(False, "search the highest rate that holds --p99-ms")
    p99_ms: float = option(0.0, "the objective of --find-capacity, which no more than 1 % of the requests may pass")
    streams: int = option(0, "send by so many bidirectional streams instead of unary calls")
    in_flight: tuple[int, ...] = option((), "closed loop of streams: requests under way on each stream")
    shared_memory: bool = option(False, "pass tensors through system shared memory; the server must be on this machine")
    data: str = option(
        "random", "random, zeros, an .npy, .npz or .jsonl file, or a folder of images", metavar="random|zeros|PATH"
    )
    rows: int = option(1, "rows in each request, where the first dimension takes any number")
    shape: tuple[str, ...] = option((), "sizes for an input with open dimensions, without rows", metavar="NAME=64x64")
    range: tuple[str, ...] = option(
        (), "values for random data of an input, both ends included", metavar="NAME=LOW:HIGH"
    )
    image_scale: float = option(1.0, "factor for pixel values of 0 to 255")
    requests: int = option(16, "different requests that are prepared and sent in turn")
    seed: int = option(0, "where random data and arrivals begin")
    warmup_s: float = option(1.0, "seconds of load before each measurement")
    duration_s: float = option(5.0, "seconds of each measurement")
    count: int = option(0, "measure so many requests instead of a time")
    repeats: int = option(0, "rounds, each with every load once; 0 = 1, or 5 where targets are compared")
    timing: bool = option(
        False, "have each answer say where its time went, and tell its phases by percentiles; needs trtserve"
    )
    stability_percent: float = option(10.0, "how far rate and p50 of the three thirds of a measurement may differ")
    workers: int = option(0, "processes that send, 256 at most; 0 = half the CPUs, at most 8")
    max_in_flight: int = option(2000, "open loop: requests under way before sending waits; the wait counts as latency")
    timeout_s: float = option(30.0, "limit for each request")
    compare: tuple[str, ...] = option((), f"the protocol's price: some of {','.join(TRANSPORTS)}", metavar="KIND,...")
    uds_url: str = option("", "unix:/path of the same server, for --compare uds", metavar="unix:/PATH")
    model_file: str = option("", "the model's ONNX file, for --compare in-process", metavar="FILE.onnx")
    server_pid: int = option(0, "the server's process, for its CPU and memory; 0 = who listens at the URL")
    tls: bool = option(False, "encrypt, and check the server by the usual root certificates")
    root_certificates: str = option("", "encrypt, and check the server by these certificates", metavar="FILE")
    private_key: str = option("", "the key of a client certificate", metavar="FILE")
    certificate_chain: str = option("", "the client certificate", metavar="FILE")
    metadata: tuple[str, ...] = option((), "a header of every call, such as authorization", metavar="NAME=VALUE")
    json: str = option("", "write the result as JSON", metavar="FILE")
    csv: str = option("", "write one line per measurement", metavar="FILE")
    report: str = option("", "write one self-contained HTML page", metavar="FILE.html")
    baseline: str = option("", "an earlier --json, which --fail-if calls baseline", metavar="FILE")
    fail_if: tuple[str, ...] = option(
        (), "exit with 4 where this holds, such as 'p99 > 1.2 * baseline.p99'", metavar="CONDITION"
    )
    quiet: bool = option(False, "no live view")

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_choices()
        self._check_modes()
        if self.compare:
            self._check_compare()

    @property
    def open_loop(self) -> bool:
        """Whether requests are sent by the clock."""
        return bool(self.rate or self.trace or self.find_capacity)

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """The loads of a closed loop, in requests under way in all."""
        if self.streams:
            return tuple(self.streams * each for each in self.in_flight or (16,))
        return self.concurrency or ((16,) if self.compare else (1, 4, 16))

    def _check_ranges(self) -> None:
        for name in ("rows", "requests", "max_in_flight"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in (
            "warmup_s",
            "count",
            "repeats",
            "workers",
            "streams",
            "p99_ms",
            "stability_percent",
            "server_pid",
            "seed",
        ):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "at least 0")
        _check(self.workers <= _MOST_WORKERS, "workers", self.workers, f"at most {_MOST_WORKERS}")
        for name in ("duration_s", "timeout_s"):
            _check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "more than 0")
        for name in ("concurrency", "in_flight"):
            _check(all(each >= 1 for each in getattr(self, name)), name, getattr(self, name), "at least 1 each")
        _check(all(0 < each < math.inf for each in self.rate), "rate", self.rate, "a number above 0 each")

    def _check_choices(self) -> None:
        for field in fields(self):
            choices, value = field.metadata["choices"], getattr(self, field.name)
            _check(not choices or value in choices, field.name, value, f"one of {', '.join(choices)}")
        for kind in self.compare:
            _check(kind in TRANSPORTS, "compare", kind, f"some of {', '.join(TRANSPORTS)}")

    def _check_modes(self) -> None:
        modes = [name for name in ("concurrency", "rate", "trace", "find_capacity") if getattr(self, name)]
        if len(modes) > 1:
            raise UsageError(f"{' and '.join(map(flag, modes))} contradict each other; give one of them")
        if self.find_capacity != bool(self.p99_ms):
            raise UsageError("--find-capacity and --p99-ms go together; one of them is missing")
        if self.streams and self.concurrency:
            raise UsageError("--streams has --in-flight for its concurrency; drop --concurrency")
        if self.in_flight and not self.streams:
            raise UsageError("--in-flight is for streams; give --streams N, or --concurrency for unary calls")
        if self.fail_if and not self.baseline and any("baseline" in each for each in self.fail_if):
            raise UsageError("--fail-if speaks of a baseline; give --baseline FILE, an earlier --json")

    def _check_compare(self) -> None:
        if len(self.compare) < 2 or len(set(self.compare)) < len(self.compare):
            raise UsageError(f"--compare {','.join(self.compare)}: at least two different kinds are wanted")
        if self.open_loop or self.streams or self.shared_memory:
            raise UsageError("--compare chooses the ways itself; of the loads it takes --concurrency alone")
        if len(self.concurrencies) != 1:
            raise UsageError("--compare takes one --concurrency")
        for kind, name in (("uds", "uds_url"), ("in-process", "model_file")):
            if kind in self.compare and not getattr(self, name):
                raise UsageError(f"--compare {kind} needs {flag(name)}")


def flag(name: str) -> str:
    """The option on the command line."""
    return "--" + name.replace("_", "-")


def _check(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        raise UsageError(f"{flag(name)} {shown}: wanted is {wanted}")
