"""gRPC's way of listening is chosen before gRPC is loaded, for the versions that have the choice."""

import subprocess
import sys

import pytest

from trtserve_server.grpc_listener import VARIABLE, prefer_quick_listener


@pytest.mark.parametrize(
    ("version", "chosen"),
    [("1.62.3", False), ("1.79.9", False), ("1.80.0", True), ("1.85.1", True), ("1.86.0rc1", False), ("2.0", False)],
)
def test_versions_that_have_both_ways_get_the_quicker(version, chosen):
    environment: dict[str, str] = {}
    prefer_quick_listener(environment, version)
    assert environment == ({VARIABLE: "-event_engine_listener"} if chosen else {})


def test_who_set_the_variable_decides():
    environment = {VARIABLE: ""}
    prefer_quick_listener(environment, "1.85.0")
    assert environment == {VARIABLE: ""}


def test_nothing_that_the_command_needs_before_loads_grpc():
    code = (
        "import sys, trtserve_server.cli as cli\n"
        "cli.read_config(cli._parser().parse_args(['m.onnx']), {})\n"
        "assert 'grpc' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_installed_grpc_knows_what_it_is_asked_for():
    code = (
        "import os; from trtserve_server.grpc_listener import prefer_quick_listener\n"
        "prefer_quick_listener(os.environ)\n"
        "import grpc, grpc.aio, asyncio\n"
        "async def main():\n"
        "    server = grpc.aio.server(); server.add_insecure_port('127.0.0.1:0')\n"
        "    await server.start(); await server.stop(0)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert "experiment" not in done.stderr
