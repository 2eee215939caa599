"""The only place that imports onnxruntime: late, because it is the slowest import, and with its telemetry off."""

from __future__ import annotations

import importlib
import os
from typing import Any


def import_onnxruntime(module: str = "onnxruntime") -> Any:
    """`onnxruntime` or one of its modules."""
    # Builds for Linux carry telemetry since 1.30; it reads this when it is loaded.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return importlib.import_module(module)
