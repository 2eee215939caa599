"""What a command of trtserve-build gives: the same facts as data for --json and as text for people; exit codes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EXIT_FAILED = 1
EXIT_MISSING = 3
EXIT_INTERRUPTED = 130
EXIT_CODES = """exit codes: 0 done; 1 failed, or damage was found; 2 wrong use; 3 this machine lacks a GPU,
its driver or TensorRT; 130 interrupted"""

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Outcome:
    """What a command found or did."""

    data: Mapping[str, Any]
    text: str
    exit_code: int = 0

    def shown(self, *, as_json: bool) -> str:
        """What is written to standard output."""
        return json.dumps(self.data, indent=2) if as_json else self.text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def count_text(number: int, noun: str) -> str:
    """So many of them: "1 engine", "2 engines"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def size_text(size_bytes: float) -> str:
    """A size in the unit that suits it."""
    unit = 0
    while size_bytes >= 1024 and unit < len(_UNITS) - 1:
        size_bytes /= 1024
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"


def time_text(seconds_since_1970: float) -> str:
    """A moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds_since_1970))


def duration_text(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.0f} h"
