"""Which Pythons the matrix finds, what it runs on them, and that what setup.cfg and build.sh say of them agrees."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.matrix.pythons import OLDEST, PYTHONS, how_to_bring, interpreter, passes_on

THIS = f"python{sys.version_info.major}.{sys.version_info.minor}"
OTHER = next(python for python in PYTHONS if python != THIS)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is alone on the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(program: Path, script: str) -> None:
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_python_is_this_one_or_that_of_the_path(programs: Path) -> None:
    assert interpreter(THIS) == sys.executable
    assert interpreter(OTHER) is None
    put(programs / OTHER, f"echo {OTHER}")
    assert interpreter(OTHER) == str(programs / OTHER)


@pytest.mark.parametrize("script", ["exit 127", "echo python3.9"], ids=["broken", "another version"])
def test_a_python_that_cannot_be_used_is_as_good_as_none(programs: Path, script: str) -> None:
    put(programs / OTHER, script)
    assert interpreter(OTHER) is None


@pytest.mark.parametrize(("fails", "passed"), [("nothing", True), ("check", False), ("test", False)])
def test_a_copy_of_the_checkout_is_checked_and_tested_with_the_python(tmp_path: Path, fails: str, passed: bool) -> None:
    checkout, copy = tmp_path / "checkout", tmp_path / "copy"
    put(checkout / "build.sh", f'echo "$1 $PYTHON" >>calls\n[ $1 != {fails} ]')
    (checkout / ".gitignore").write_text("ignored\n")
    for name in ("ignored", "new", "removed"):
        (checkout / name).touch()
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    subprocess.run(["git", "add", "--all"], cwd=checkout, check=True)
    (checkout / "removed").unlink()
    assert passes_on("python3.12", checkout, copy) is passed
    assert (copy / "calls").read_text() == "check python3.12\ntest python3.12\n"
    assert sorted(path.name for path in copy.iterdir()) == [".gitignore", "build.sh", "calls", "new"]


def test_a_python_that_is_named_and_not_there_fails_with_a_sentence(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.matrix.run", OTHER]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"passed: nothing\nnot run: {OTHER}: {how_to_bring(OTHER)}\n"


def test_build_script_looks_for_the_pythons_of_the_matrix_the_newest_first(root: Path) -> None:
    (looked_for,) = re.findall(r"for candidate in python3 (.*); do", (root / "build.sh").read_text())
    assert looked_for.split() == [*reversed(PYTHONS), OLDEST]
    minor = int(PYTHONS[-1].rpartition(".")[2])
    assert f'for below in "3, {minor + 1}"' in (root / "build.sh").read_text()


def test_the_classifiers_name_no_python_that_is_not_run(root: Path) -> None:
    setup = ConfigParser()
    setup.read(root / "setup.cfg")
    named = re.findall(r"Python :: (3\.\d+)$", setup["metadata"]["classifiers"], re.MULTILINE)
    assert named
    assert {f"python{version}" for version in named} <= {OLDEST, *PYTHONS}
