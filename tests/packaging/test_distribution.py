"""What is given to users: an sdist that can be built, a wheel with all that runs and nothing else, programs that say
which extra they need.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

PACKAGES = ("trtserve_client", "trtserve_engines", "trtserve_protos", "trtserve_server")
SOURCES = ("client", "engines", "protos", "server")
FILES = ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg", "setup.py")

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""


def built(kind: str, source: Path, target: Path) -> Path:
    """The sdist or wheel of a source tree, built by the backend that pyproject.toml names, in this environment."""
    command = [sys.executable, "-c", BUILD, kind, str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The sdist of a copy of this tree, because building generates files."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in SOURCES:
        shutil.copytree(root / folder, tree / folder, ignore=shutil.ignore_patterns("_generated", "__pycache__"))
    for file in FILES:
        shutil.copy(root / file, tree)
    return built("sdist", tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that the sdist makes, as pip does where there is no wheel."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return zipfile.ZipFile(built("wheel", tree, tmp_path_factory.mktemp("wheel")))


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def test_the_wheel_holds_the_packages_and_nothing_beside_them(wheel: zipfile.ZipFile) -> None:
    folders = {name.partition("/")[0] for name in wheel.namelist()}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile, root: Path) -> None:
    kept = {".py", ".typed", ".css"}
    wanted = {
        str(path.relative_to(root / folder))
        for folder in SOURCES
        for package in PACKAGES
        for path in (root / folder / package).rglob("*")
        if path.suffix in kept
    }
    assert wanted - set(wheel.namelist()) == set()


def test_the_wheel_holds_the_generated_definitions_with_their_types(wheel: zipfile.ZipFile, root: Path) -> None:
    generated = "trtserve_protos/_generated"
    assert f"{generated}/descriptors.binpb" in wheel.namelist()
    sources = root / "protos" / "sources"
    for proto in sources.rglob("*.proto"):
        assert f"{generated}/{proto.relative_to(sources).with_suffix('')}_pb2.pyi" in wheel.namelist()


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    about = metadata(wheel)
    assert (about["Name"], about["Requires-Python"], about["License-File"]) == ("trtserve", ">=3.11", "LICENSE")
    assert "Apache-2.0" in (about["License"] or about["License-Expression"])
    assert about.get_payload().startswith("# trtserve")


def test_without_an_extra_the_client_is_light(wheel: zipfile.ZipFile) -> None:
    required = [line for line in metadata(wheel).get_all("Requires-Dist", ()) if "extra ==" not in line]
    assert sorted(line.partition(">=")[0].strip() for line in required) == ["grpcio", "numpy", "protobuf"]


@pytest.mark.parametrize(
    ("program", "missing", "words"),
    [
        ("trtserve_server.cli", "uvloop", ["--scripted", "m:latency_ms=1"]),
        ("trtserve_server.cli", "ml_dtypes", ["--scripted", "m:latency_ms=1", "--print-config"]),
        ("trtserve_engines.tensorrt.cli.__main__", "ml_dtypes", ["list"]),
    ],
)
def test_a_program_without_its_packages_says_how_to_install_them(program: str, missing: str, words: list[str]) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from {program} import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"the package {missing!r} is not installed" in line
    assert line.endswith("pip install 'trtserve[server]'")
