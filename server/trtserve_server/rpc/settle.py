"""Gives a future its result, unless who waited for it has given up."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


def settle(future: asyncio.Future[T], result: T) -> None:
    """Sets the result of a future that has none and is not cancelled; does nothing otherwise."""
    if not future.done():
        future.set_result(result)
