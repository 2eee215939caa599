"""Finds the four packages and generates the protobuf artefacts before they are built; all else stands in setup.cfg."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class GenerateAndBuild(build_py):
    """build_py with the wire definitions compiled first."""

    def run(self) -> None:
        """Generates, then builds."""
        runpy.run_path(str(ROOT / "protos" / "generate.py"))["generate"]()
        # The list of data files was made when setuptools started; the generated ones were not there yet.
        self.__dict__.pop("data_files", None)
        super().run()


setup(
    packages=[package for folder in ("protos", "engines", "server", "client") for package in find_packages(folder)]
    + ["trtserve_protos._generated", "trtserve_protos._generated.oip", "trtserve_protos._generated.health"],
    cmdclass={"build_py": GenerateAndBuild},
)
