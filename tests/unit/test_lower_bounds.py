"""The oldest versions that setup.cfg promises to work with are those that `./build.sh matrix` installs."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.matrix.run import ENVIRONMENTS

SETUP = ConfigParser()
SETUP.read(Path(__file__).resolve().parents[2] / "setup.cfg")
EXTRAS = SETUP["options.extras_require"]


@pytest.mark.parametrize(
    ("requirements", "name"),
    [
        (SETUP["options"]["install_requires"], "oldest"),
        (SETUP["options"]["install_requires"], "oldest-server"),
        (EXTRAS["image"], "oldest"),
        (EXTRAS["load"], "oldest-load"),
        (EXTRAS["server"], "oldest-server"),
    ],
    ids=["client", "client of the server", "image", "load", "server"],
)
def test_a_lower_bound_is_a_version_that_the_matrix_tests(requirements: str, name: str) -> None:
    bounds = dict(re.findall(r"^([\w-]+) >= ([\d.]+)$", requirements, re.MULTILINE))
    assert len(bounds) == len(requirements.strip().splitlines())
    tested = dict(package.split("==") for package in ENVIRONMENTS[name].packages if "==" in package)
    assert {package: numbers(tested[package]) for package in bounds} == {
        package: numbers(bound) for package, bound in bounds.items()
    }


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, where 1.62 is 1.62.0."""
    given = tuple(map(int, version.split(".")))
    return given + (0,) * (3 - len(given))
