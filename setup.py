"""Generates the protobuf artefacts, then lists the four packages; all else stands in setup.cfg."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

runpy.run_path(str(Path(__file__).resolve().parent / "protos" / "generate.py"))["generate"]()

setup(packages=[package for folder in ("protos", "engines", "server", "client") for package in find_packages(folder)])
