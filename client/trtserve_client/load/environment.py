"""Where a measurement was made: this machine, its versions, its GPU. For the reader of a result."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import psutil

_PACKAGES = ("trtserve", "grpcio", "protobuf", "numpy", "hdrhistogram")
_GIB = 1 << 30


def environment() -> dict[str, str]:
    """What is known of this machine, in the order to be shown in."""
    found = {
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {psutil.virtual_memory().total / _GIB:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
    }
    if gpu := _gpu():
        found["gpu"] = gpu
    load = os.getloadavg()[0]
    found["load before"] = f"{load:.2f} (1-minute average of waiting processes, without this measurement)"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _gpu() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
