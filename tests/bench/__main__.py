"""`./build.sh bench [NAME...]`: measures, prints each figure as a ratio to a baseline of the same run, and its target.

Every load on a server is trtserve-load's. The core, the simulation, imports and host costs have no server to send to.
Exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import tempfile
from contextlib import ExitStack
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from tests.bench.grpc_client import GrpcClient
from tests.bench.harness import Harness
from tests.bench.load import drive_by
from tests.bench.writing import documented, write_all
from trtserve_client.load.environment import environment

NAMES = (
    "unary",
    "streams",
    "convnet",
    "imports",
    "scheduling",
    "shared_memory",
    "simulation",
    "adaptive",
    "overload",
    "counting",
    "tensorrt_host",
    "driver",
)
"""Modules of this folder; each has a `run` that yields ratios."""


def main() -> int:
    """Runs the benches that were named, or all."""
    parser = argparse.ArgumentParser(prog="./build.sh bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which to run; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements of each figure")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--grpc-client", action="store_true", help="closed loops by gRPC's asyncio client, for its view"
    )
    either.add_argument("--write", action="store_true", help="and write docs/benchmarks.*")
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "protobuf", "numpy", "onnxruntime", "uvloop"))
    machine = f"{environment()['machine']}, Python {platform.python_version()}"
    print(f"{machine}; {packages}")
    print(f"median of {arguments.rounds} rounds in turn; the load shares the machine with the server\n")
    ratios = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(drive_by(GrpcClient() if arguments.grpc_client else stack.enter_context(Harness())))
        for name in arguments.names or NAMES:
            for ratio in import_module(f"tests.bench.{name}").run(Path(folder), arguments.rounds, arguments.seconds):
                print(ratio, flush=True)
                ratios.append(ratio)
    if arguments.write:
        about = {"machine": machine, "packages": packages, "rounds": arguments.rounds, "seconds": arguments.seconds}
        about |= {"command": " ".join(["./build.sh bench", *sys.argv[1:]]), "date": datetime.date.today().isoformat()}
        print("\nwritten: " + ", ".join(map(str, write_all(Path("docs"), {**about, "ratios": documented(ratios)}))))
    return 0 if all(ratio.met for ratio in ratios) else 1


if __name__ == "__main__":
    raise SystemExit(main())
