"""The simulated TensorRT of both generations, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.simulated_tensorrt import GENERATIONS, simulated_tensorrt


@pytest.fixture(params=GENERATIONS)
def generation(request: pytest.FixtureRequest) -> str:
    """The version of TensorRT that is simulated."""
    return str(request.param)


@pytest.fixture
def trt(generation: str) -> Iterator[Any]:
    """The simulated package; its work is done at once on host memory."""
    with simulated_tensorrt(generation) as module:
        yield module
