"""Triton's load generator, perf_analyzer: taken from a wheel, with the libraries that it wants beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.environments import environment

# The last wheel that holds the program. It is linked against a CUDA runtime, which needs no GPU to be loaded.
REQUIREMENTS = ["tritonclient==2.50.0", "nvidia-cuda-runtime-cu12"]
WAIT_S = 120


class NotRunnable(Exception):
    """The program is there and cannot be started."""


class Program:
    """A perf_analyzer that can be started."""

    def __init__(self, path: Path, libraries: list[Path]) -> None:
        self._path = path
        self._environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}

    def run(self, *arguments: str) -> str:
        """What it reports; it must end well."""
        result = self._start(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def check(self) -> None:
        """Raises NotRunnable with the reason."""
        try:
            result = self._start("--help")
        except OSError as error:
            raise NotRunnable(str(error)) from error
        if result.returncode != 0 and "shared librar" in result.stderr:
            raise NotRunnable(result.stderr.strip())

    def _start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._path), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=self._environment, timeout=WAIT_S, check=False
        )


def find_perf_analyzer() -> Program:
    """The program, ready to run. Raises RegistryUnreachable or NotRunnable."""
    folder = environment("perf-analyzer", REQUIREMENTS).parent.parent
    path = folder / "bin" / "perf_analyzer"
    if not path.exists():
        raise NotRunnable("the wheel for this platform does not hold it")
    path.chmod(0o755)
    libraries = [file.parent for file in folder.glob("lib/python*/site-packages/nvidia/**/libcudart.so.*")]
    program = Program(path, [*libraries, _libb64(folder)])
    program.check()
    return program


def _libb64(folder: Path) -> Path:
    """The folder of libb64, fetched from Debian's or Ubuntu's packages where it is to be had; it may stay empty."""
    unpacked = folder / "libb64"
    unpacked.mkdir(exist_ok=True)
    if not any(unpacked.rglob("libb64.so*")) and shutil.which("apt-get") and shutil.which("dpkg"):
        subprocess.run(["apt-get", "download", "libb64-0d"], cwd=unpacked, capture_output=True, check=False)
        for package in unpacked.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package.name, "."], cwd=unpacked, capture_output=True, check=False)
    return next((file.parent for file in unpacked.rglob("libb64.so*")), unpacked)
