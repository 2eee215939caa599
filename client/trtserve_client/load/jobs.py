"""What the harness and its worker processes say to each other. Plain records; nothing here acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trtserve_client.channel import ChannelOptions, TlsOptions

OK = ""
"""The status of a request that was answered."""


@dataclass(frozen=True)
class Connection:
    """Where a worker connects, and by what. `streams` is 0 for unary calls."""

    url: str
    tls: TlsOptions | bool | None
    metadata: tuple[tuple[str, str], ...]
    options: ChannelOptions
    streams: int
    timeout_s: float
    timed: bool = False
    """Whether answers say where their time went, so that they have to be read."""


@dataclass(frozen=True)
class Plan:
    """What a worker gets once: its connection, and the messages that it sends in turn."""

    connection: Connection
    messages: Sequence[bytes]


@dataclass(frozen=True)
class Window:
    """When is measured, on the system's monotonic clock, in buckets of `bucket_s`.

    Load begins at `begins` and is measured from `measured` until `ends`; a count-limited measurement ends by its
    count, and `ends` is infinite.
    """

    begins: float
    measured: float
    ends: float
    bucket_s: float

    @property
    def last_bucket(self) -> float:
        """The number of the last bucket; infinite where the window is."""
        return float(np.ceil((self.ends - self.measured) / self.bucket_s - 1e-9)) - 1


@dataclass(frozen=True)
class ClosedLoad:
    """So many requests are always under way; `count` measured ones end it, 0 = the window does."""

    concurrency: int
    count: int


@dataclass(frozen=True)
class OpenLoad:
    """Requests go at `offsets` seconds after the window begins, one message after the other."""

    offsets: np.ndarray
    max_in_flight: int


@dataclass(frozen=True)
class Job:
    """One measurement for one worker."""

    window: Window
    load: ClosedLoad | OpenLoad


@dataclass
class Bucket:
    """What a stretch of time held: answers and errors of requests that belong to it, and answers that came in it.

    `latencies` and `failed` are the answers' and the errors' times in seconds; `last_end` is when the last came.
    """

    latencies: np.ndarray = field(default_factory=lambda: np.empty(0))
    answered: int = 0
    last_end: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    failed: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Ready:
    """The worker is connected."""


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on; `reason` is for the user."""

    reason: str


@dataclass(frozen=True)
class Progress:
    """What came since the last one. `cpu_s` is what the process has used at `time`, with all its threads.

    `timings` holds a histogram for each phase of the requests whose answers told them.
    """

    time: float
    cpu_s: float
    buckets: dict[int, Bucket]
    first_error: str = ""
    timings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """The job is over. `lags` holds how late each measured request of an open loop was sent, in seconds.

    `unsent` counts requests that were due but found no place before the end; `unanswered` those given up.
    """

    lags: np.ndarray
    unsent: int = 0
    unanswered: int = 0


@dataclass(frozen=True)
class Stop:
    """From the harness: end the job now, with what there is."""
