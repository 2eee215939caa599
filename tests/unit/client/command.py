"""What running a command of trtserve-client gives, and the form of its errors."""

from __future__ import annotations

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]
"""Runs a command's words; gives exit code, stdout, stderr."""


def failed(outcome: tuple[int, str, str], code: int, *parts: str) -> None:
    """Asserts the exit code, an empty stdout, and one line on stderr with all of `parts`."""
    assert outcome[0] == code
    assert outcome[1] == ""
    assert outcome[2].startswith("trtserve-client: error: ") and outcome[2].count("\n") == 1
    for part in parts:
        assert part in outcome[2]
