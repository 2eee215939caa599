"""Which optimization profile serves which shapes, and which batch sizes get a graph: pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trtserve_engines.config import ConfigError
from trtserve_engines.tensorrt.profile_shapes import Shape, ShapeRange

Profile = Mapping[str, ShapeRange]
"""The range of each input by name: of its shape, or of its values where it is read as a shape."""


def choose_profile(profiles: Sequence[Profile], given: Mapping[str, Shape]) -> int | None:
    """The number of the tightest profile that holds all that is given; None where none does.

    Tightest is the one whose largest inputs have the fewest elements: its kernels are tuned for what is given. Of
    equals the first.
    """
    fitting = [
        number
        for number, profile in enumerate(profiles)
        if all(profile[name].holds(shape) for name, shape in given.items())
    ]
    return min(fitting, key=lambda number: _largest(profiles[number]), default=None)


def explain_misfit(profiles: Sequence[Profile], given: Mapping[str, Shape]) -> str:
    """What is given and what the profiles hold, for the one who sent it."""
    held = " or ".join(
        ", ".join(f"{name} {shapes}" for name, shapes in profile.items() if name in given) for profile in profiles
    )
    got = ", ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in given.items())
    return f"{got} given; the engine was built for {held} (smallest:usual:largest)"


def row_limits(profiles: Sequence[Profile], inputs: Sequence[str]) -> tuple[int, int]:
    """The smallest and the largest first dimension that some profile holds for all of these inputs."""
    low = min(max(profile[name].min[0] for name in inputs) for profile in profiles)
    high = max(min(profile[name].max[0] for name in inputs) for profile in profiles)
    return low, high


def batch_limit(profiles: Sequence[Profile], inputs: Sequence[str]) -> int:
    """The largest first dimension of these inputs that requests of any shape the profiles hold may be joined to.

    A profile counts with the largest of all that hold whatever it holds but for the first dimension.
    """
    return min(
        max(_rows(other, inputs) for other in profiles if _covers(other, profile, inputs)) for profile in profiles
    )


def batch_buckets(low: int, high: int, wanted: Sequence[int] = ()) -> tuple[int, ...]:
    """The batch sizes that get a graph, rising: those wanted, or powers of two; and always the largest.

    Raises ConfigError for a wanted one that no profile holds.
    """
    low = max(low, 1)
    for bucket in wanted:
        if not low <= bucket <= high:
            raise ConfigError(f"batch_buckets has {bucket}, but the engine was built for {low} to {high} rows")
    powers = [1 << exponent for exponent in range(max(high, 1).bit_length())]
    buckets = wanted or [power for power in powers if low <= power <= high]
    return tuple(sorted({*buckets, high}))


def bucket_of(buckets: Sequence[int], rows: int) -> int | None:
    """The smallest bucket that `rows` fit into; None where there is none."""
    return next((bucket for bucket in buckets if bucket >= rows), None)


def _largest(profile: Profile) -> int:
    return sum(math.prod(shapes.max) for shapes in profile.values())


def _rows(profile: Profile, inputs: Sequence[str]) -> int:
    return min(profile[name].max[0] for name in inputs)


def _covers(other: Profile, profile: Profile, inputs: Sequence[str]) -> bool:
    """Whether `other` holds all that `profile` does, but for the first dimension of these inputs."""
    for name, shapes in profile.items():
        start = 1 if name in inputs else 0
        lows = zip(other[name].min[start:], shapes.min[start:], strict=True)
        highs = zip(other[name].max[start:], shapes.max[start:], strict=True)
        if any(low > wanted for low, wanted in lows) or any(high < wanted for high, wanted in highs):
            return False
    return True
