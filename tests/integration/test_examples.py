"""The examples as the README shows them: the command line and both scripts read every digit."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.oip_client import WAIT_S
from tests.support.running_server import RunningServer
from trtserve_client import cli

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server of the examples."""
    server = RunningServer(model_repository=(str(ROOT / "examples" / "models"),), allow_client_shared_memory=True)
    yield server.url
    server.stop()


def run(script: str, *arguments: str) -> str:
    """What an example prints."""
    command = [sys.executable, f"examples/digits/{script}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(text: str) -> list[tuple[float, int, str]]:
    """Value, index and label of each line that has them, in a table or between colons."""
    found = re.findall(r"^([\d.e-]+)(?::| +)(\d+)(?::| +)(\w+)$", text, re.MULTILINE)
    return [(pytest.approx(float(value), abs=1e-4), int(index), label) for value, index, label in found]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_reads_every_scan(url: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["infer", "digits", "--image", str(EXAMPLE / f"{name}.png"), "--url", url]) == 0
    (_, *read), *others = rows(capsys.readouterr().out)
    assert read == [NAMES.index(name), name]
    assert len(others) == 2


def test_the_command_line_prints_what_the_readme_shows(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, shown = re.findall(r"```\n\$ \S*trtserve-client (infer digits --image .*)\n([^`]+)```", README)[0]
    *words, scan = command.split()
    assert cli.main([*words, str(ROOT / scan), "--url", url]) == 0
    assert rows(capsys.readouterr().out) == rows(shown) != []


def test_the_script_for_one_scan_prints_the_same_classes(url: str) -> None:
    shown = rows(re.findall(r"\$ \S*python examples/digits/infer.py.*\n([^`]+)```", README)[0])
    assert len(shown) == 3
    assert rows(run("infer.py", "examples/digits/seven.png", url)) == shown
    assert rows(run("infer.py", "examples/digits/two.png", url))[0][1:] == (2, "two")


def test_the_script_for_all_scans_reads_them_over_one_stream(url: str) -> None:
    lines = run("stream.py", url).splitlines()
    assert sorted(line.split() for line in lines) == sorted([name, "is", str(NAMES.index(name))] for name in NAMES)


def test_the_scripts_are_short_and_shown_as_they_are() -> None:
    for script in ("infer.py", "stream.py"):
        assert len((EXAMPLE / script).read_text().splitlines()) <= 15
    (shown,) = re.findall(r"```python\n(image = [^`]+)```", README)
    assert shown in (EXAMPLE / "infer.py").read_text()


def test_the_page_of_the_client_can_be_run_as_it_stands(url: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(), re.DOTALL)
    program = "\n".join(blocks).replace("127.0.0.1:8001", url)
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "shape [1, 8, 8] given" in done.stdout
    assert "did you mean 'digits'?" in done.stdout


def test_the_model_is_small() -> None:
    assert (ROOT / "examples/models/digits/1/model.onnx").stat().st_size < 300_000
