"""What a model needs of a GPU's memory, part by part, and whether that is free: pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trtserve_engines.cuda.api import Memory
from trtserve_engines.errors import DeviceMemoryError

ALIGNMENT = 256
"""In bytes: what TensorRT wants of every address."""


class MemoryNeed(NamedTuple):
    """One part of what is needed."""

    what: str
    size: int


def check_memory(needs: Sequence[MemoryNeed], memory: Memory, reserve: int, where: str) -> None:
    """Raises DeviceMemoryError, which lists the needs, unless all of them and `reserve` are free."""
    needed = sum(need.size for need in needs)
    if needed + reserve <= memory.free:
        return
    parts = ", ".join(f"{need.what} {readable(need.size)}" for need in needs)
    raise DeviceMemoryError(
        f"{where} has {readable(memory.free)} of {readable(memory.total)} free, but {readable(needed)} are needed"
        f" ({parts}) and {readable(reserve)} are to stay free (memory_reserve_bytes). Use fewer instances, a smaller"
        " max_batch_size or another GPU, or unload a model"
    )


def readable(size: int) -> str:
    """A number of bytes in a unit that suits it."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def aligned(size: int) -> int:
    """`size` up to the next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT
