"""Sizes and durations as people write them: 20GiB, 30d."""

from __future__ import annotations

import re

from trtserve_engines.config import ConfigError

_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATIONS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def bytes_from_text(text: str, name: str) -> int:
    """The size that `text` writes, in bytes; units are powers of 1024. Raises ConfigError that names the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt]?)i?b?)", text.strip().lower())
    if not match:
        raise ConfigError(f"{name} = {text!r}; wanted is a size such as 500MiB, 20GiB or a number of bytes")
    return int(float(match[1]) * _SIZES[match[2]])


def seconds_from_text(text: str, name: str) -> float:
    """The duration that `text` writes, in seconds. Raises ConfigError that names the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip().lower())
    if not match:
        raise ConfigError(f"{name} = {text!r}; wanted is a duration such as 12h, 30d or a number of seconds")
    return float(match[1]) * _DURATIONS[match[2]]
