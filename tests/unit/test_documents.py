"""What the documents name is there: options, metrics, files, headings. The page of options is what the code gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import options_page
from trtserve_client.cli import main as client
from trtserve_client.load.cli import main as load
from trtserve_engines.tensorrt.cli.main import COMMANDS, main as build
from trtserve_server.cli import main as server

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEPLOY = ROOT / "examples" / "deploy"
CLIENT_COMMANDS = ("health", "index", "model", "infer", "load", "unload", "trace", "log")
PROGRAMS: tuple[tuple[Callable[[list[str]], object], tuple[str, ...]], ...] = (
    (server, ("",)),
    (client, ("", *CLIENT_COMMANDS)),
    (load, ("", "compare")),
    (build, ("", *COMMANDS)),
)
OTHERS = {"--editable", "--no-deps", "--stop-timeout", "--write", "--rounds", "--seconds"}
"""Options of pip, docker and build.sh."""
TRITONS = re.compile(r"^\| `--.*?\|", re.MULTILINE)
"""The first column of the table of tritonserver's options."""


@pytest.fixture
def known(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Every option that one of the programs has."""
    for main, commands in PROGRAMS:
        for command in commands:
            with pytest.raises(SystemExit) as ended:
                main([*command.split(), "--help"])
            assert not ended.value.code
    return set(re.findall(r"--[a-z][a-z0-9-]+", capsys.readouterr().out))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_an_option_that_a_document_names_exists(document: Path, known: set[str]) -> None:
    text = re.sub(r"`tritonserver --help`", "", TRITONS.sub("", document.read_text()))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
    assert named - known - OTHERS == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_metric_that_a_document_names_exists(document: Path) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram) ", options_page.page(), re.MULTILINE))
    named = set(re.findall(r"`(nv_\w+|trtserve_\w+_(?:seconds|rows|total|progress))`", document.read_text()))
    # A pattern such as nv_cache_* is written with its star, and no word of this kind.
    assert named - listed == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", document.read_text())
    for path, heading in links:
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{path} is not there"
        assert not heading or heading in headings(target), f"{target.name} has no heading #{heading}"


def headings(document: Path) -> set[str]:
    """The names by which GitHub links to headings."""
    found = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in found}


def test_the_page_of_options_is_the_one_that_the_code_gives() -> None:
    """`python -m tests.support.options_page` writes it again."""
    assert options_page.DOCUMENT.read_text() == options_page.page()


def commands_for_deployment() -> list[list[str]]:
    """The words by which the container and the unit start the server."""
    docker, unit = (DEPLOY / "Dockerfile").read_text(), (DEPLOY / "trtserve.service").read_text()
    entry, words = (json.loads(re.findall(rf"^{key} (.*)$", docker, re.MULTILINE)[-1]) for key in ("ENTRYPOINT", "CMD"))
    return [[*entry, *words], re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)[0].split()]


@pytest.mark.parametrize("command", commands_for_deployment(), ids=("container", "unit"))
def test_the_files_for_a_deployment_are_understood(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = (DEPLOY / "trtserve.service").read_text()
    for name, value in re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE):
        monkeypatch.setenv(name, value)
    (tmp_path / "models").mkdir()
    config = (DEPLOY / "trtserve.toml").read_text().replace("/srv/models", f"{tmp_path}/models")
    (tmp_path / "trtserve.toml").write_text(config)
    program, *arguments = command
    assert Path(program).name == "trtserve"
    here = [re.sub(r"^/(etc/trtserve/)?(?=models|trtserve)", f"{tmp_path}/", word) for word in arguments]
    with pytest.raises(SystemExit) as ended:
        server([*here, "--print-config"])
    shown, errors = capsys.readouterr()
    assert (ended.value.code, errors) == (0, "")
    assert 'grpc_address = "0.0.0.0:8001"' in shown
