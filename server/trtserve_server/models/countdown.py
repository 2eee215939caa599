"""One call after several: for what waits until each of some things has ended."""

from __future__ import annotations

from collections.abc import Callable


def after(count: int, call: Callable[[], None]) -> Callable[[], None]:
    """What is to be called `count` times, 1 or more, and calls `call` at the last of them."""
    left = count

    def ended() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            call()

    return ended
