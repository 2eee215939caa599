"""Installs a wheel of this checkout with other versions of what it depends on, and runs the tests in each.

`./build.sh matrix [NAME...]`. The client is installed alone with the oldest, the newest and tritonclient's packages;
the server with the oldest of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

TEST_PACKAGES = ("pytest", "hypothesis", "pillow")


class Environment(NamedTuple):
    """What is installed beside the wheel, which of its extras, and the tests that must pass."""

    packages: tuple[str, ...]
    extras: str = ""
    tests: tuple[str, ...] = (
        "tests/unit/client",
        "--ignore=tests/unit/client/load",  # of an extra
        "tests/unit/protos",
        "--confcutdir=tests/unit",
    )


ENVIRONMENTS: dict[str, Environment] = {
    "oldest": Environment(("grpcio==1.62.0", "protobuf==4.25.0", "numpy==1.24.0", "ml_dtypes")),
    "newest": Environment(("grpcio", "protobuf", "numpy", "ml_dtypes")),
    "tritonclient": Environment(("tritonclient[grpc]", "grpcio<1.68", "protobuf<7", "ml_dtypes")),
    "oldest-server": Environment(
        (
            "grpcio==1.62.0",
            "grpcio-reflection==1.62.0",
            "ml_dtypes==0.4.0",
            "numpy==1.26.0",
            "onnx==1.16.0",
            "onnxruntime==1.20.0",
            "prometheus-client==0.20.0",
            "protobuf==4.25.0",
            "uvloop==0.19.0",
        ),
        "[server]",
        ("tests/unit/server", "tests/unit/engines", "tests/unit/protos", "tests/conformance", "tests/integration"),
    ),
}

VERSIONS = """
from importlib.metadata import distributions
found = {item.name: item.version for item in distributions()}
print(*(f"{name} {found[name]}" for name in ("grpcio", "protobuf", "numpy", "tritonclient") if name in found))
"""
NOTHING_OF_THE_SERVER = """
from importlib.util import find_spec
brought = [name for name in ("onnx", "onnxruntime", "uvloop", "prometheus_client") if find_spec(name)]
assert not brought, f"the client alone brought the server's packages: {brought}"
"""


def main() -> int:
    """Runs the environments that were named, or all; exit status 1 where one fails."""
    parser = argparse.ArgumentParser(prog="./build.sh matrix", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(ENVIRONMENTS)}")
    names = parser.parse_args().names or list(ENVIRONMENTS)
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT))
        (wheel,) = Path(folder).glob("trtserve-*.whl")
        failed = [name for name in names if not passes(name, wheel, Path(folder))]
    print(f"failed: {', '.join(failed)}" if failed else f"passed: {', '.join(names)}")
    return 1 if failed else 0


def passes(name: str, wheel: Path, folder: Path) -> bool:
    """Whether the client's tests pass with the packages of environment `name`."""
    venv = folder / name
    run(sys.executable, "-m", "venv", str(venv))
    python = str(venv / "bin" / "python")
    environment = ENVIRONMENTS[name]
    run(
        python, "-m", "pip", "install", "--quiet", f"{wheel}{environment.extras}", *environment.packages, *TEST_PACKAGES
    )
    print(f"== {name}: ", end="", flush=True)
    run(python, "-c", VERSIONS)
    if not environment.extras:
        run(python, "-c", NOTHING_OF_THE_SERVER)
    return subprocess.run([python, "-m", "pytest", "-q", *environment.tests], cwd=ROOT).returncode == 0


def run(*command: str) -> None:
    """Runs a command that must succeed."""
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


if __name__ == "__main__":
    raise SystemExit(main())
