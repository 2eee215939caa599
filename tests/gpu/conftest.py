"""Tests of this folder need an NVIDIA GPU; where there is none, or a package is missing, each is skipped by name."""

from __future__ import annotations

import pytest

from trtserve_engines.cuda.api import Driver
from trtserve_engines.cuda.open_driver import open_driver
from trtserve_engines.errors import BackendUnavailableError


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each of the two packages on the real driver."""
    try:
        return open_driver(request.param)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
