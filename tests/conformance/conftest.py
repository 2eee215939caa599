"""What every simulated test of this folder is held to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.fake_cuda import FakeCuda


@pytest.fixture(autouse=True)
def nothing_is_left_on_the_gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """By the stand-in's counters: after the test there is as much on the simulated GPU as before."""
    if request.node.get_closest_marker("simulated") is None:
        yield
        return
    before = FakeCuda().live()
    yield
    assert FakeCuda().live() == before
