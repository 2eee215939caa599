"""A real Triton with one model, y = 2 x, by nvidia-pytriton: GRPC_PORT HTTP_PORT TOKEN. Ends when its stdin does."""

from __future__ import annotations

import sys

import numpy as np
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig  # type: ignore[import-not-found]


@batch
def double(x: np.ndarray) -> dict[str, np.ndarray]:
    """The model."""
    return {"y": 2 * x}


if __name__ == "__main__":
    grpc_port, http_port = map(int, sys.argv[1:3])
    config = TritonConfig(grpc_port=grpc_port, http_port=http_port, allow_metrics=False)
    # Triton restricts statistics and shared memory to who knows the token; pytriton makes one up where none is given.
    with Triton(config=config, security_config=TritonSecurityConfig(access_token=sys.argv[3])) as triton:
        x, y = (Tensor(name=name, dtype=np.float32, shape=(16,)) for name in "xy")
        batcher = DynamicBatcher(max_queue_delay_microseconds=0)
        triton.bind("double", double, [x], [y], config=ModelConfig(max_batch_size=64, batcher=batcher))
        triton.run()
        print("ready", flush=True)
        sys.stdin.read()
