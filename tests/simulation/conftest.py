"""Fixtures for tests on the stand-in libcuda."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.fake_cuda import FakeCuda
from trtserve_engines.cuda.api import Driver
from trtserve_engines.cuda.open_driver import open_driver


@pytest.fixture
def cuda() -> Iterator[FakeCuda]:
    """The stand-in, as if new; after the test nothing may live that did not live before it."""
    fake = FakeCuda()
    fake.reset()
    before = fake.live()
    yield fake
    fake.reset()
    assert fake.live() == before


@pytest.fixture
def lossy() -> Iterator[FakeCuda]:
    """The stand-in, for tests after which something may be left: what belongs to a lost GPU is not freed."""
    fake = FakeCuda()
    fake.reset()
    yield fake
    fake.reset()


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each of the two packages."""
    return open_driver(request.param)
