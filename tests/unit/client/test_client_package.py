"""What the package offers and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import trtserve_client


def test_all_lists_the_public_names() -> None:
    names = {name for name, value in vars(trtserve_client).items() if not name.startswith("_") and not is_module(value)}
    assert sorted(names) == trtserve_client.__all__


def is_module(value: object) -> bool:
    return type(value).__name__ == "module"


def test_importing_the_client_loads_nothing_that_it_may_never_need() -> None:
    code = "import sys, trtserve_client; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    unwanted = {"argparse", "PIL", "ml_dtypes", "trtserve_client.aio", "trtserve_client.cli", "trtserve_server", "onnx"}
    assert not unwanted & loaded
