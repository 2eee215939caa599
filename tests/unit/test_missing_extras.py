"""Every command is there where the client is installed alone; one that needs more says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = {
    "trtserve": ("trtserve_server.cli", "server", ["m.onnx"]),
    "trtserve --print-config": ("trtserve_server.cli", "server", ["--print-config"]),
    "trtserve-build": ("trtserve_engines.tensorrt.cli.__main__", "server", ["list"]),
    "trtserve-load": ("trtserve_client.load.cli", "load", ["m"]),
}
WITHOUT = """
import sys
sys.modules |= dict.fromkeys(["hdrh", "hpack", "ml_dtypes", "onnx", "onnxruntime", "psutil", "uvloop"])
from {module} import main
sys.argv[1:] = {arguments}
sys.exit(main())
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_whose_packages_are_missing_names_the_extra_that_brings_them(command: str) -> None:
    module, extra, arguments = COMMANDS[command]
    code = WITHOUT.format(module=module, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith(f"{command.split(maxsplit=1)[0]}: ")
    assert line.endswith(f": pip install 'trtserve[{extra}]'")


def test_the_client_needs_none_of_them() -> None:
    code = WITHOUT.format(module="trtserve_client.cli", arguments=["--help"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
