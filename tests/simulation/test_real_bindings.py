"""What we derive from, set and look up in TensorRT's bindings is there in the real ones, from the oldest we take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.compact_manifest import FOLDER
from tests.simulation.real_bindings import CompilerMissing, bindings_environment
from tests.support.environments import RegistryUnreachable

VERSIONS = {
    "10.11.0.33": [],
    "10.16.1.11": [FOLDER / "api-10.16.json"],
    "11.4.0.106": [FOLDER / "api-11.4.json"],
}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_real_bindings_take_what_we_do(version):
    try:
        environment = bindings_environment(version)
    except (RegistryUnreachable, CompilerMissing) as error:
        pytest.skip(f"TensorRT's bindings {version} cannot be had here: {error}")
    command = [sys.executable, Path(__file__).parent / "use_real_bindings.py", *VERSIONS[version]]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "all as it should be\n"
