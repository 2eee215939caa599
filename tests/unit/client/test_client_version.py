"""`--version` of both commands: the version that is installed, without asking a server."""

from importlib.metadata import version

import pytest

from trtserve_client import cli
from trtserve_client.load import cli as load_cli


@pytest.mark.parametrize(("program", "main"), [("trtserve-client", cli.main), ("trtserve-load", load_cli.main)])
def test_a_command_says_its_version(program, main, capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"{program} {version('trtserve')}\n", "")
