"""How long `import trtserve_client` takes, against `import grpc, numpy`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.report import Ratio, in_turn, medians


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The comparison, each import in a fresh process."""
    import_ms("import trtserve_client")
    pairs = in_turn(4 * rounds, lambda: import_ms("import trtserve_client"), lambda: import_ms("import grpc, numpy"))
    values = [one / other for one, other in pairs]
    yield Ratio(
        "import trtserve_client / import grpc, numpy",
        values,
        1.3,
        False,
        "{:.0f} ms / {:.0f} ms".format(*medians(pairs)),
    )


def import_ms(statement: str) -> float:
    """Milliseconds that the statement takes in a process that has imported nothing before."""
    code = f"import time; start = time.perf_counter(); {statement}; print((time.perf_counter() - start) * 1e3)"
    # As a user has it: compiled modules are written, by the first process, and found by the next.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
