"""The regions that clients have registered, by name, and windows into them whose bounds have been checked."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Hashable, Iterator
from typing import Protocol, TypeVar

import numpy as np

from trtserve_engines.sources import Located, located
from trtserve_server.errors import InvalidRequest, RegionExists, RegionLimit, RegionNotFound

R = TypeVar("R")

_MAX_REGIONS = 16_000
"""Each is a mapping, and two once it was cut off; Linux gives a process 65,530, of which its own memory takes some."""


class Region(Protocol):
    """A piece of shared memory. It is given back when nothing refers to it any more, requests included."""

    name: str
    byte_size: int

    def read(self, offset: int, target: memoryview) -> None:
        """Fills `target` with what lies at `offset`. Raises InvalidRequest where that is not there any more."""
        ...

    def write(self, offset: int, data: memoryview) -> None:
        """Writes `data` to `offset`. Raises InvalidRequest where there is no room for it any more."""
        ...

    def view(self, offset: int, size: int) -> np.ndarray | None:
        """What lies at `offset`, as uint8, where it lies; None where it can only be copied.

        Others may change it at any time, and cut it off: then it holds zeros, and `check_view` tells.
        """
        ...

    def is_there(self, end: int) -> bool:
        """Whether the first `end` bytes can be viewed still."""
        ...

    def holds(self, array: np.ndarray) -> bool:
        """Whether an array is one that was made of a view."""
        ...

    def check_view(self, end: int) -> None:
        """Raises InvalidRequest where something of the first `end` bytes was cut off, now or while it was used."""
        ...

    def position(self, offset: int) -> tuple[Hashable, int]:
        """A piece of memory and the place in it: comparable between regions that are parts of the same one."""
        ...


class Window:
    """`size` bytes of a region, from `offset` on, all of them inside of it."""

    __slots__ = ("_seen", "offset", "region", "size")

    def __init__(self, region: Region, offset: int, size: int) -> None:
        self.region = region
        self.offset = offset
        self.size = size
        # The form that it was last wanted in, as requests for the same window want the same. Replaced as a whole: the
        # threads of several instances may come here at once.
        self._seen: tuple[np.dtype, tuple[int, ...], Located] | None = None

    def read(self, target: memoryview) -> None:
        """Fills `target`, which has the window's size. Raises InvalidRequest."""
        self.region.read(self.offset, target)

    def write(self, data: bytes | memoryview) -> None:
        """Writes `data` to the window's beginning. Raises InvalidRequest where it is longer or was cut off."""
        data = memoryview(data)
        if data.nbytes > self.size:
            raise InvalidRequest(
                f"{data.nbytes} bytes are to be written to the {self.size} that the request gives in shared memory"
                f" region {self.region.name!r}; ask with a shared_memory_byte_size of at least {data.nbytes}"
            )
        self.region.write(self.offset, data)

    def array(self, dtype: np.dtype, shape: tuple[int, ...]) -> Located | None:
        """The window's beginning, where it lies, as an array; None where it is too short or can only be copied.

        See `Region.view`.
        """
        seen = self._seen
        if seen is not None and seen[0] is dtype and seen[1] == shape:
            return seen[2] if self.is_there() else None
        size = math.prod(shape) * dtype.itemsize
        view = self.region.view(self.offset, self.size) if 0 < size <= self.size else None
        if view is None:
            return None
        there = located(view[:size].view(dtype).reshape(shape))
        self._seen = dtype, shape, there
        return there

    def is_there(self) -> bool:
        """Whether the window can be used where it lies, for now."""
        return self.region.is_there(self.offset + self.size)

    def check_view(self) -> None:
        """Raises InvalidRequest where a view was cut off; see Region."""
        self.region.check_view(self.offset + self.size)

    def overlaps(self, other: Window) -> bool:
        """Whether a byte lies in both."""
        (memory, start), (other_memory, other_start) = (each.region.position(each.offset) for each in (self, other))
        return memory == other_memory and start < other_start + other.size and other_start < start + self.size


class Regions:
    """Every registered region, of all kinds: names are unique among them. Belongs to the event loop's thread."""

    def __init__(self, limit: int | None = None) -> None:
        # Each holds a file descriptor, and connections need some as well.
        self._limit = limit or min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, _MAX_REGIONS)
        self._regions: dict[str, Region] = {}
        self.on_change: Callable[[], None] = lambda: None
        """Called when regions have come or gone: windows that were found before may not be what they were."""

    def check_free(self, name: str) -> None:
        """Raises unless a region of this name could be added: InvalidRequest, RegionExists or RegionLimit."""
        if not name:
            raise InvalidRequest("the region has no name; wanted is a text that requests can refer to")
        if name in self._regions:
            raise RegionExists(f"shared memory region {name!r} is registered already; unregister it first")
        if len(self._regions) >= self._limit:
            raise RegionLimit(
                f"{self._limit} shared memory regions are registered, which is the most that this server's limits of"
                " open files and mappings allow; unregister those that are not needed"
            )

    def add(self, region: Region) -> None:
        """Makes the region known. Raises as `check_free`."""
        self.check_free(region.name)
        self._regions[region.name] = region
        self.on_change()

    def remove(self, name: str, kind: type) -> None:
        """Forgets the region, or every one of `kind` with "". Does nothing where there is none, as at Triton.

        Requests under way keep the region that they use.
        """
        for known, region in list(self._regions.items()):
            if name in ("", known) and isinstance(region, kind):
                del self._regions[known]
        self.on_change()

    def find(self, name: str) -> Region:
        """The region of this name. Raises RegionNotFound."""
        region = self._regions.get(name)
        if region is None:
            raise RegionNotFound(f"no shared memory region {name!r} is registered; register it first")
        return region

    def of_kind(self, kind: type[R]) -> Iterator[R]:
        """The regions that are instances of `kind`, in the order of their registration."""
        return (region for region in self._regions.values() if isinstance(region, kind))

    def window(self, name: str, offset: int, size: int) -> Window:
        """A part of the region called `name`. Raises RegionNotFound, or InvalidRequest where it is not inside."""
        end = self.find(name).byte_size  # the region itself in a variable would live as long as an error's traceback
        if offset + size > end:
            raise InvalidRequest(
                f"{size} bytes at offset {offset} of shared memory region {name!r} end at byte {offset + size};"
                f" the region ends at {end}"
            )
        return Window(self.find(name), offset, size)
