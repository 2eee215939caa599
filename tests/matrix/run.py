"""Installs a wheel of this checkout with other versions of what it depends on, and runs the tests in each.

`./build.sh matrix [NAME...]`. The client is installed alone with the oldest, the newest and tritonclient's packages;
the load harness and the server with the oldest of their own; all on the oldest Python. pythons.py runs everything on
other ones.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.matrix.pythons import OLDEST, PYTHONS, how_to_bring, interpreter, passes_on

ROOT = Path(__file__).resolve().parents[2]

TEST_PACKAGES = ("pytest", "hypothesis")
LOAD_TESTS = "tests/unit/client/load"
CLIENT_ALONE = "--confcutdir=tests/unit"
"""Leaves out what the tests share, because that needs the server."""
OLDEST_OF_THE_CLIENT = ("grpcio==1.62.0", "protobuf==4.25.0", "numpy==1.24.0", "pillow==10.0.0")
OLDEST_OF_THE_HARNESS = (*OLDEST_OF_THE_CLIENT, "hdrhistogram==0.10.3", "hpack==4.0.0", "psutil==5.9.4")
OLDEST_OF_THE_SERVER = (
    *OLDEST_OF_THE_HARNESS,  # its tests measure it
    "grpcio-reflection==1.62.0",
    "ml_dtypes==0.4.0",
    "onnx==1.16.0",
    "onnxruntime==1.21.0",
    "prometheus-client==0.20.0",
    "uvloop==0.19.0",
)


class Environment(NamedTuple):
    """What is installed beside the wheel, which of its extras, and the tests that must pass."""

    packages: tuple[str, ...]
    extras: str = ""
    tests: tuple[str, ...] = ("tests/unit/client", "tests/unit/protos", f"--ignore={LOAD_TESTS}", CLIENT_ALONE)


ENVIRONMENTS: dict[str, Environment] = {
    "oldest": Environment((*OLDEST_OF_THE_CLIENT, "ml_dtypes"), "[image]"),
    "newest": Environment(("grpcio", "protobuf", "numpy", "ml_dtypes"), "[image]"),
    "tritonclient": Environment(("tritonclient[grpc]", "grpcio<1.68", "protobuf<7", "ml_dtypes"), "[image]"),
    "oldest-load": Environment(OLDEST_OF_THE_HARNESS, "[image,load]", (LOAD_TESTS, CLIENT_ALONE)),
    "oldest-server": Environment(
        OLDEST_OF_THE_SERVER,
        "[server,image,load]",
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
    """Runs what was named, or all; exit status 1 where one fails, or was named and its Python is not found."""
    known = [*ENVIRONMENTS, *PYTHONS]
    parser = argparse.ArgumentParser(prog="./build.sh matrix", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}")
    named = parser.parse_args().names
    if unknown := set(named) - set(known):
        parser.error(f"{', '.join(sorted(unknown))} is unknown; known are {', '.join(known)}")
    found = {name: interpreter(python_of(name)) for name in named or known}
    with tempfile.TemporaryDirectory() as folder:
        passed = {name: passes(name, python, Path(folder)) for name, python in found.items() if python}
    failed = [name for name, well in passed.items() if not well]
    print(f"failed: {', '.join(failed)}" if failed else f"passed: {', '.join(passed) or 'nothing'}")
    missing = [name for name in found if name not in passed]
    for name in missing:
        print(f"not run: {name}: {how_to_bring(python_of(name))}")
    return 1 if failed or (named and missing) else 0


def python_of(name: str) -> str:
    """The Python that runs an environment: the oldest, but where the name is that of another."""
    return name if name in PYTHONS else OLDEST


def passes(name: str, python: str, folder: Path) -> bool:
    """Whether the tests of an environment pass, or of the whole checkout on another Python."""
    print(f"== {name}: ", end="", flush=True)
    if name in PYTHONS:
        run(python, "--version")
        return passes_on(python, ROOT, folder / name)
    return passes_with(ENVIRONMENTS[name], python, wheel_in(folder), folder / name)


def wheel_in(folder: Path) -> Path:
    """This checkout's wheel, built at the first call."""
    if not (wheels := list(folder.glob("trtserve-*.whl"))):
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
        wheels = list(folder.glob("trtserve-*.whl"))
    return wheels[0]


def passes_with(environment: Environment, base: str, wheel: Path, folder: Path) -> bool:
    """Whether the tests of an environment pass with its packages."""
    run(base, "-m", "venv", str(folder))
    python = str(folder / "bin" / "python")
    run(
        python, "-m", "pip", "install", "--quiet", f"{wheel}{environment.extras}", *environment.packages, *TEST_PACKAGES
    )
    run(python, "-c", VERSIONS)
    if "server" not in environment.extras:
        run(python, "-c", NOTHING_OF_THE_SERVER)
    return subprocess.run([python, "-m", "pytest", "-q", *environment.tests], cwd=ROOT).returncode == 0


def run(*command: str) -> None:
    """Runs a command that must succeed."""
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


if __name__ == "__main__":
    raise SystemExit(main())
