"""Virtual environments with other packages than the project's own, made once and kept beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class RegistryUnreachable(Exception):
    """pip could not install what an environment needs."""


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The Python of `.venv-NAME` in the project's folder, with `requirements` installed.

    Raises RegistryUnreachable with pip's last lines where they cannot be installed.
    """
    folder = ROOT / f".venv-{name}"
    python = folder / "bin" / "python"
    stamp = folder / ".requirements"
    wanted = "\n".join([sys.version, *requirements])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RegistryUnreachable("\n".join(result.stderr.strip().splitlines()[-3:]))
    stamp.write_text(wanted)
    return python
