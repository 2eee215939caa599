"""600 kB both ways in shared memory against the same tensors in messages: at the same server, and at the baseline's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from tests.bench import servers
from tests.bench.load import closed_loop, request
from tests.bench.report import Ratio, in_turn, medians
from tests.models import make_models
from trtserve_protos import oip

ELEMENTS = 150_000
SIZE = 4 * ELEMENTS
CONCURRENT = 4


def run(folder: Path, rounds: int, seconds: float) -> Iterator[Ratio]:
    """The comparisons, at 4 concurrent calls. All read the same input and write the same output."""
    make_models.save(make_models.scale(2.0, ELEMENTS), folder / "large.onnx")
    plain = request("large", "x", np.ones((1, ELEMENTS), np.float32))
    with (
        servers.baseline() as baseline,
        servers.trtserve(str(folder / "large.onnx"), "--allow-client-shared-memory") as ours,
        shared(ours) as region,
    ):
        for name, url in (("messages", ours), ("baseline servicer", baseline)):
            pairs = in_turn(
                rounds,
                lambda: closed_loop(ours, in_shared_memory(region), CONCURRENT, seconds).rate,
                lambda url=url: closed_loop(url, plain, CONCURRENT, seconds).rate,  # type: ignore[misc]
            )
            figures = "{:.0f}/s / {:.0f}/s".format(*medians(pairs))
            values = [one / other for one, other in pairs]
            yield Ratio(f"600 kB both ways, shared memory: rate / {name}", values, 3.0, True, figures)


@contextmanager
def shared(url: str) -> Iterator[str]:
    """A registered region with room for input and output; gives its name."""
    key = f"/trtserve-bench-{os.getpid()}"
    path = Path(f"/dev/shm{key}")
    path.write_bytes(np.ones(2 * ELEMENTS, np.float32).tobytes())
    register = oip.METHODS["SystemSharedMemoryRegister"]
    message = register.request_class(name="bench", key=key, byte_size=2 * SIZE)
    try:
        with grpc.insecure_channel(url) as channel:
            channel.unary_unary(register.path)(message.SerializeToString())
        yield "bench"
    finally:
        path.unlink()


def in_shared_memory(region: str) -> bytes:
    """A request whose input and output lie in the region, one behind the other."""
    message = oip.ModelInferRequest(model_name="large")
    tensors = [message.inputs.add(name="x", datatype="FP32", shape=[1, ELEMENTS]), message.outputs.add(name="y")]
    for number, tensor in enumerate(tensors):
        tensor.parameters["shared_memory_region"].string_param = region
        tensor.parameters["shared_memory_byte_size"].int64_param = SIZE
        tensor.parameters["shared_memory_offset"].int64_param = number * SIZE
    return message.SerializeToString()
