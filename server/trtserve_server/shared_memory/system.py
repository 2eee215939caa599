"""POSIX shared memory as a region: opened by its key, checked against its prefix, mapped where it can be guarded.

What cannot be mapped, or is broken, is copied by system calls, which never fault.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Hashable

import numpy as np

from trtserve_server.errors import InvalidRequest, RegionNotFound
from trtserve_server.shared_memory import sigbus_guard
from trtserve_server.shared_memory.mapping import Mapping

SHARED_MEMORY_FOLDER = "/dev/shm"
"""Where Linux keeps the objects of shm_open."""

# What shm_open itself uses, so that neither a link nor a pipe put there can lead elsewhere or hold the server.
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LONGEST_NAME = 255
_LARGEST_OFFSET = 2**63 - 1


class SystemRegion:
    """`byte_size` bytes, from `offset` on, of the shared memory object called `key`. See Region.

    `why_copied` says why nothing there is read or written in place; "" where it is.
    """

    def __init__(self, name: str, key: str, offset: int, byte_size: int, descriptor: int) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.byte_size = byte_size
        self.why_copied = "it is not mapped"
        self._descriptor = descriptor
        self._mapping: Mapping | None = None
        self._bytes = np.empty(0, np.uint8)  # of the mapping
        weakref.finalize(self, os.close, descriptor)

    def map(self) -> None:
        """Maps the region, where that can be guarded."""
        self.why_copied = sigbus_guard.why_not(self.byte_size)
        if not self.why_copied:
            try:
                self._mapping = Mapping(self._descriptor, self.offset, self.byte_size)
                self._bytes = self._mapping.bytes()
            except OSError as error:
                self.why_copied = f"it cannot be mapped: {error.strerror}"

    def view(self, offset: int, size: int) -> np.ndarray | None:
        """See Region."""
        return self._bytes[offset : offset + size] if size and self.is_there(offset + size) else None

    def is_there(self, end: int) -> bool:
        """See Region."""
        return self._mapping is not None and self._mapping.is_shared(end) and self._reaches(end)

    def holds(self, array: np.ndarray) -> bool:
        """See Region."""
        return array.base is self._bytes  # numpy's views refer to the array that they are all views of

    def check_view(self, end: int) -> None:
        """See Region."""
        if not self._reaches(end):
            raise self._shrunk()
        if self._mapping is not None and not self._mapping.is_shared(end):
            raise InvalidRequest(
                f"{self._shown} was cut off while the request used it, or {SHARED_MEMORY_FOLDER} is full;"
                " tensors there are copied from now on: unregister the region and register what is there"
            )

    def read(self, offset: int, target: memoryview) -> None:
        """See Region."""
        if (view := self.view(offset, target.nbytes)) is not None:
            np.copyto(np.frombuffer(target, np.uint8), view)
            self.check_view(offset + target.nbytes)
        else:
            self._read_by_calls(offset, target)

    def write(self, offset: int, data: memoryview) -> None:
        """See Region. Never makes the object larger."""
        if (view := self.view(offset, data.nbytes)) is not None:
            np.copyto(view, np.frombuffer(data, np.uint8))
            self.check_view(offset + data.nbytes)
        else:
            self._write_by_calls(offset, data)

    def _read_by_calls(self, offset: int, target: memoryview) -> None:
        position = self.offset + offset
        while target.nbytes:
            try:
                count = os.preadv(self._descriptor, [target], position)
            except OSError as error:
                raise InvalidRequest(f"{self._shown} cannot be read: {error.strerror}") from error
            if count == 0:
                raise self._shrunk()
            target = target[count:]
            position += count

    def _write_by_calls(self, offset: int, rest: memoryview) -> None:
        position = self.offset + offset
        if not self._reaches(offset + rest.nbytes):
            raise self._shrunk()
        while rest.nbytes:
            try:
                count = os.pwrite(self._descriptor, rest, position)
            except OSError as error:
                raise InvalidRequest(f"{self._shown} cannot be written to: {error.strerror}") from error
            rest = rest[count:]
            position += count

    def position(self, offset: int) -> tuple[Hashable, int]:
        """See Region."""
        status = os.fstat(self._descriptor)
        return (status.st_dev, status.st_ino), self.offset + offset

    @property
    def _shown(self) -> str:
        return f"shared memory region {self.name!r} (key {self.key!r})"

    def _reaches(self, end: int) -> bool:
        # Quicker than to ask for its status; nobody uses the descriptor's position.
        return os.lseek(self._descriptor, 0, os.SEEK_END) >= self.offset + end

    def _shrunk(self) -> InvalidRequest:
        size = os.fstat(self._descriptor).st_size
        return InvalidRequest(
            f"{self._shown} has shrunk since it was registered: its object has {size} bytes now,"
            f" {self.offset + self.byte_size} are wanted; unregister it and register what is there"
        )


def open_system_region(name: str, key: str, offset: int, byte_size: int, *, prefix: str) -> SystemRegion:
    """Opens the object called `key`, whose name must begin with `prefix`.

    Raises InvalidRequest for a key, offset or size that cannot be, RegionNotFound where there is no such object.
    """
    path = os.path.join(SHARED_MEMORY_FOLDER, _object_name(key, prefix))
    if byte_size < 1 or offset + byte_size > _LARGEST_OFFSET:
        raise InvalidRequest(f"byte_size = {byte_size} at offset {offset}; wanted is a part of the object, 1 or more")
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise RegionNotFound(
            f"there is no shared memory object {key!r} on the server's machine; create it first, and run the server"
            f" where it can see the client's {SHARED_MEMORY_FOLDER}"
        ) from None
    except OSError as error:
        raise InvalidRequest(f"shared memory object {key!r} cannot be opened: {error.strerror}") from error
    region = SystemRegion(name, key, offset, byte_size, descriptor)
    _check_object(descriptor, region)
    region.map()
    return region


def _object_name(key: str, prefix: str) -> str:
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(name.encode()) > _LONGEST_NAME:
        raise InvalidRequest(
            f"key {key[:_LONGEST_NAME]!r} is not the name of a shared memory object; wanted is one such as '/inputs',"
            f" without another slash and of at most {_LONGEST_NAME} bytes"
        )
    if not name.startswith(prefix.removeprefix("/")):
        raise InvalidRequest(f"key {key!r} is not allowed: keys must begin with {prefix!r} at this server")
    return name


def _check_object(descriptor: int, region: SystemRegion) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidRequest(f"key {region.key!r} is not a shared memory object but another kind of file")
    end = region.offset + region.byte_size
    if end > status.st_size:
        raise InvalidRequest(
            f"{region.byte_size} bytes at offset {region.offset} of shared memory object {region.key!r} end at byte"
            f" {end}; the object has {status.st_size}"
        )
