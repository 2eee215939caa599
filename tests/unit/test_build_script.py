"""build.sh on a machine whose Python is a stand-in: what it sets up, when, and the sentence where something lacks.

No package is installed and no server started; that a fresh clone really works is seen by cloning it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BELONGS = ("build.sh", "setup.cfg", "setup.py", "pyproject.toml", "protos/generate.py", "protos/sources")
TOOLS = ("bash", "cat", "chmod", "cksum", "cp", "dirname", "find", "mkdir", "rm", "sh", "sort", "tail")

PYTHON = """#!/bin/sh
# Stands in for Python VERSION: does what build.sh sees of venv and pip, and writes down that it was asked to.
case "$*" in
"-c import sys;"*) exec EXECUTABLE -c "import sys; sys.version_info = (VERSION); ${2#import sys;}" ;;
"-c import pip") exit ${PYTHON_IS_ANOTHER:-0} ;;
"-c import ensurepip"*) exit ${VENV_IS_MISSING:-0} ;;
"-m venv"*)
    echo "${0##*/} venv $3" >>"$CALLS"
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '#!/bin/sh\\necho "trtserve $*"\\n' >"$3/bin/trtserve"
    chmod +x "$3/bin/trtserve" ;;
"-m pip install"*)
    echo "install $5" >>"$CALLS"
    echo "what pip said last"
    mkdir -p protos/trtserve_protos/_generated
    exit ${PIP_FAILS:-0} ;;
esac
"""


class Machine:
    """A folder with the files that build.sh reads, and a PATH on which there is little beside the stand-in."""

    def __init__(self, folder: Path, pythons: Mapping[str, str] = {"python3": "3, 11, 2"}) -> None:
        self.tree = folder / "trtserve"
        self._bin = folder / "bin"
        self._calls = folder / "calls"
        for name in BELONGS:
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.tree / name)
        self._bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"{tool} is missing here"
            (self._bin / tool).symlink_to(found)
        for python, version in pythons.items():
            script = PYTHON.replace("EXECUTABLE", sys.executable).replace("VERSION", version)
            (self._bin / python).write_text(script)
            (self._bin / python).chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> Any:
        """What `./build.sh ARGUMENTS` ends with."""
        variables = {"PATH": str(self._bin), "CALLS": str(self._calls), **environment}
        command = [str(self.tree / "build.sh"), *arguments]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)

    @property
    def calls(self) -> list[str]:
        """What was set up since the last look."""
        calls = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return calls


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_first_start_sets_up_and_serves_the_examples(machine: Machine) -> None:
    done = machine.run("serve", "--instances", "2")
    assert (done.returncode, done.stdout) == (0, "trtserve --model-repository examples/models --instances 2\n")
    assert machine.calls == ["python3 venv .venv", "install .[server,image]"]


def test_a_later_start_sets_up_nothing(machine: Machine) -> None:
    machine.run("serve")
    assert machine.calls
    done = machine.run("serve")
    assert (done.stdout, done.stderr) == ("trtserve --model-repository examples/models\n", "")
    assert machine.calls == []


def test_what_development_needs_holds_what_the_server_needs(machine: Machine) -> None:
    assert machine.run("setup").returncode == 0
    assert machine.calls == ["python3 venv .venv", "install .[dev]"]
    machine.run("serve")
    assert machine.calls == []


@pytest.mark.parametrize("file", ["setup.cfg", "pyproject.toml", "protos/sources/oip/open_inference.proto"])
def test_a_start_after_a_change_installs_again_in_the_same_environment(machine: Machine, file: str) -> None:
    machine.run("serve")
    assert machine.calls
    with (machine.tree / file).open("a") as stream:
        stream.write("\n")
    machine.run("serve")
    assert machine.calls == ["install .[server,image]"]


@pytest.mark.parametrize("words", [("m.onnx",), ("--model-repository=r",), ("--config", "c.toml"), ("--help",)])
def test_named_models_take_the_place_of_the_examples(machine: Machine, words: tuple[str, ...]) -> None:
    assert machine.run("serve", *words).stdout == f"trtserve {' '.join(words)}\n"


@pytest.mark.parametrize("variable", ["TRTSERVE_MODEL", "TRTSERVE_MODEL_REPOSITORY", "TRTSERVE_CONFIG"])
def test_models_that_the_environment_names_do_so_too(machine: Machine, variable: str) -> None:
    assert machine.run("serve", **{variable: "x"}).stdout == "trtserve \n"


def refused(done: Any, *words: str) -> None:
    """Asserts an end with status 1, whose last line on standard error has `words` in it."""
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("build.sh: ")
    assert [word for word in words if word not in last] == [], last


def test_a_missing_venv_module_is_one_sentence_with_the_command_that_brings_it(machine: Machine) -> None:
    done = machine.run("serve", VENV_IS_MISSING="1")
    refused(done, "python3 has no venv module", "sudo apt-get install python3-venv")
    assert (len(done.stderr.splitlines()), done.stdout, machine.calls) == (1, "", [])


def test_a_missing_python_is_one_sentence_with_the_command_that_brings_it(tmp_path: Path) -> None:
    done = Machine(tmp_path, pythons={}).run("serve")
    refused(
        done, "Python 3.11 or newer", "sudo apt-get install python3 python3-venv", "PYTHON=/folder/python3 ./build.sh"
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_python_that_is_too_old_is_as_good_as_none(tmp_path: Path) -> None:
    done = Machine(tmp_path, pythons={"python3": "3, 10, 12", "python3.10": "3, 10, 12"}).run("serve")
    refused(done, "Python 3.11 or newer", "python3.11 python3.11-venv and so on, beside an older python3")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": "3, 11, 2", "python3.13": "3, 13, 0"}, "python3"),
        ({"python3": "3, 12, 1"}, "python3"),
        ({"python3": "3, 13, 0", "python3.12": "3, 12, 1"}, "python3"),
        ({"python3": "3, 10, 12", "python3.12": "3, 12, 1"}, "python3.12"),
        ({"python3": "3, 9, 2", "python3.11": "3, 11, 2", "python3.13": "3, 13, 0"}, "python3.13"),
        ({"python3.14": "3, 14, 0"}, "python3.14"),
        ({"python3": "3, 15, 0", "python3.12": "3, 12, 1"}, "python3.12"),
        ({"python3": "3, 15, 0", "python3.10": "3, 10, 12"}, "python3"),
    ],
    ids=str,
)
def test_the_python_of_the_machine_is_taken_unless_another_suits_better(
    tmp_path: Path, pythons: Mapping[str, str], taken: str
) -> None:
    machine = Machine(tmp_path, pythons)
    assert machine.run("serve").returncode == 0
    assert machine.calls[0] == f"{taken} venv .venv"


def test_a_python_that_is_named_is_taken_or_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"python3": "3, 12, 1", "python3.42": "3, 42, 0", "python3.10": "3, 10, 12"})
    refused(machine.run("serve", PYTHON="python3.10"), "PYTHON=python3.10", "Python 3.11 or newer")
    refused(machine.run("serve", PYTHON="/nowhere/python"), "PYTHON=/nowhere/python", "Python 3.11 or newer")
    assert machine.calls == []
    assert machine.run("serve", PYTHON="python3.42").returncode == 0
    assert machine.calls[0] == "python3.42 venv .venv"
    done = machine.run("serve", PYTHON="python3", VENV_IS_MISSING="1")
    assert done.returncode == 0, "the environment that is there already is kept"


def test_what_brings_the_venv_module_is_of_the_same_python(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"python3": "3, 10, 12", "python3.12": "3, 12, 1"})
    refused(machine.run("serve", VENV_IS_MISSING="1"), "python3.12 has no", "sudo apt-get install python3.12-venv")


def test_an_environment_whose_python_has_become_another_is_made_again(machine: Machine) -> None:
    machine.run("serve")
    assert machine.calls
    done = machine.run("serve", PYTHON_IS_ANOTHER="1")
    assert done.returncode == 0
    assert "making it again" in done.stderr
    assert machine.calls == ["python3 venv .venv", "install .[server,image]"]


def test_an_environment_that_is_not_ours_is_never_removed(machine: Machine) -> None:
    theirs = machine.tree / ".venv" / "theirs"
    theirs.parent.mkdir()
    theirs.touch()
    machine.run("serve", PYTHON_IS_ANOTHER="1")
    assert theirs.exists()


def test_what_pip_cannot_install_is_told_with_its_last_lines_and_tried_again(machine: Machine) -> None:
    done = machine.run("serve", PIP_FAILS="1")
    refused(done, "pip could not install trtserve[server,image]", ".venv/pip.log")
    assert "what pip said last" in done.stderr
    assert machine.calls == ["python3 venv .venv", "install .[server,image]"]
    assert machine.run("serve").returncode == 0
    assert machine.calls == ["install .[server,image]"]


def test_what_a_verb_cannot_do_is_refused_before_anything_is_set_up(machine: Machine) -> None:
    refused(machine.run("serv"), "serv is unknown")
    refused(machine.run("test", "everything"), "test everything is unknown", "integration")
    for seconds in ("5", "long"):
        refused(machine.run("soak", seconds), f"soak {seconds}", "60 seconds or more")
    assert machine.calls == []


def test_help_and_the_rules_for_contributors_name_every_verb(machine: Machine) -> None:
    verbs = re.findall(r"^verb_(\w+)\(", (ROOT / "build.sh").read_text(), re.MULTILINE)
    assert len(verbs) > 5
    told = machine.run("help").stdout
    table = (ROOT / "CONTRIBUTING.md").read_text()
    for verb in set(verbs) - {"help"}:
        assert f"\n  {verb} " in told
        assert f"\n| `{verb}" in table
