"""Checks and tests the whole checkout on another Python, as its owner would: in a fresh copy, by `./build.sh`.

Brings no Python: where one is not found, a sentence says how to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PYTHONS = ("python3.12", "python3.13", "python3.14")
"""Newer ones than CI's. For the last, and none after it, every package has a wheel."""

OLDEST = "python3.11"
"""The only one for which the oldest packages have wheels."""

NAME = "import ensurepip, sys, venv; print('python{}.{}'.format(*sys.version_info))"


def interpreter(python: str) -> str | None:
    """What runs a Python such as "python3.12": this one, or else the PATH's; None where there is none that works."""
    if python == f"python{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    path = shutil.which(python)
    if path is None:
        return None
    name = subprocess.run([path, "-c", NAME], capture_output=True, text=True, check=False).stdout.strip()
    return path if name == python else None


def how_to_bring(python: str) -> str:
    """What to do where `python` is not found."""
    return (
        f"{python} with its venv module is not on the PATH: where the system has it, "
        f"sudo apt-get install {python} {python}-venv brings it; else put the folder of one that you have on the PATH"
    )


def passes_on(python: str, checkout: Path, folder: Path) -> bool:
    """Whether a copy of the checkout in `folder`, set up with `python`, passes its checks and all its tests."""
    copy_checkout(checkout, folder)
    environment = {**os.environ, "PYTHON": python}
    # Both are run, so that one run tells all that fails.
    codes = [subprocess.run(["./build.sh", verb], cwd=folder, env=environment).returncode for verb in ("check", "test")]
    return codes == [0, 0]


def copy_checkout(checkout: Path, folder: Path) -> None:
    """Copies what git knows or would add, as it is now: no environment, nothing generated."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=checkout, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (checkout / name).exists():  # else removed, and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, folder / name)
