"""`./build.sh bench [NAME...]`: measures, prints each figure as a ratio to a baseline of the same run, and its target.

Exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

NAMES = (
    "unary",
    "streams",
    "convnet",
    "imports",
    "scheduling",
    "simulation",
    "adaptive",
    "overload",
    "counting",
    "tensorrt_host",
)
"""Modules of this folder; each has a `run` that yields ratios."""


def main() -> int:
    """Runs the benches that were named, or all."""
    parser = argparse.ArgumentParser(prog="./build.sh bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which to run; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements of each figure")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "protobuf", "numpy", "onnxruntime", "uvloop"))
    print(f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}, {packages}")
    print(f"median of {arguments.rounds} rounds in turn; the load shares the machine with the server\n")
    met = True
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or NAMES:
            run = import_module(f"tests.bench.{name}").run
            for ratio in run(Path(folder), arguments.rounds, arguments.seconds):
                print(ratio, flush=True)
                met = met and ratio.met
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
