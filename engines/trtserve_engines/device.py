"""What identifies a GPU to an engine that was built for it. Pure data; the CUDA port fills it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class GpuIdentity:
    """One kind of GPU with one kind of driver: where all of this is equal, an engine may be used again.

    Number of multiprocessors and memory are in it because slices of one GPU (MIG) share name and compute capability.
    `driver_version` is the CUDA version that the driver implements, for example (13, 0).
    """

    name: str
    compute_capability: tuple[int, int]
    sm_count: int
    memory_bytes: int
    driver_version: tuple[int, int]

    def key_fields(self) -> dict[str, Any]:
        """The fields by name, as plain JSON values, for the key of an engine cache."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        major, minor = self.compute_capability
        driver = ".".join(map(str, self.driver_version))
        memory = self.memory_bytes / 2**30
        return f"{self.name} (compute {major}.{minor}, {self.sm_count} SMs, {memory:.1f} GiB, CUDA driver {driver})"
