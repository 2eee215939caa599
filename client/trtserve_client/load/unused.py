"""Options that are given where nothing uses them: a mistake, for whoever gives one expects it to count. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from trtserve_client.load.config import LoadConfig, flag
from trtserve_client.load.errors import UsageError


class _Use(NamedTuple):
    """Whether an option counts, and what it is for."""

    counts: Callable[[LoadConfig], bool]
    what_for: str


_USES = {
    "arrivals": _Use(lambda config: config.open_loop and not config.trace, "--rate and --find-capacity"),
    "baseline": _Use(lambda config: bool(config.fail_if), "--fail-if"),
    "count": _Use(lambda config: not config.trace, "loads but a --trace, which is replayed whole"),
    "duration_s": _Use(
        lambda config: not config.trace and (not config.count or "in-process" in config.compare),
        "loads that a time ends, not --count or --trace",
    ),
    "image_scale": _Use(lambda config: config.data not in ("random", "zeros"), "--data with a folder of images"),
    "max_in_flight": _Use(lambda config: config.open_loop, "--rate, --trace and --find-capacity"),
    "model_file": _Use(lambda config: "in-process" in config.compare, "--compare in-process"),
    "range": _Use(lambda config: config.data == "random", "--data random"),
    "repeats": _Use(lambda config: not config.find_capacity, "loads that are given, not --find-capacity"),
    "rows": _Use(lambda config: config.data in ("random", "zeros"), "made-up data; files have rows of their own"),
    "seed": _Use(lambda config: config.data == "random" or config.open_loop, "--data random and --rate"),
    "uds_url": _Use(lambda config: "uds" in config.compare, "--compare uds"),
    "warmup_s": _Use(lambda config: not config.trace, "loads but a --trace, whose requests may be what warms up"),
}


def unused(config: LoadConfig, given: Collection[str]) -> list[str]:
    """The names of the given options that do not count in this configuration."""
    return [name for name in given if name in _USES and not _USES[name].counts(config)]


def check_used(config: LoadConfig, given: Collection[str], where: str = "") -> None:
    """Raises UsageError, after `where`, for a given option that does not count."""
    for name in unused(config, given):
        raise UsageError(f"{where}{flag(name)} is for {_USES[name].what_for}; nothing else uses it, drop it")
