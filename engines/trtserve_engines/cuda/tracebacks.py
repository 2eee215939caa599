"""Lets go of what an error's frames hold: objects of a GPU must die on their thread, not with the error on another."""

from __future__ import annotations

import traceback


def clear_frames(error: BaseException) -> None:
    """Empties the local variables of all finished functions that `error`, and the errors behind it, came through."""
    behind: BaseException | None = error
    while behind is not None:
        traceback.clear_frames(behind.__traceback__)
        behind = behind.__cause__ or behind.__context__
