"""Keeps objects from ever being destroyed: those whose destructor would call a device that is lost, and hang."""

from __future__ import annotations

import ctypes


def keep_for_good(thing: object) -> None:
    """Lets `thing`, and all that it refers to, live until the process ends without any destructor."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
