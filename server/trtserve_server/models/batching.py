"""Whether requests to a model share its runs, and up to how many rows: as its configuration says, else by trying."""

from __future__ import annotations

from typing import NamedTuple

from trtserve_engines.batch_check import Batchability, check_batchable
from trtserve_engines.config import ConfigError
from trtserve_engines.engine import Engine
from trtserve_server.config import ServerConfig


class Batching(NamedTuple):
    """The most rows in a run, 0 where requests are never batched, and why they are or are not."""

    max_batch_size: int
    reason: str


def decide_batching(engine: Engine, configured: int | None, server: ServerConfig) -> Batching:
    """What holds for a model with this engine and max_batch_size. Raises ConfigError where it cannot be so."""
    batched, reason = _decide(engine, configured)
    return Batching(_max_batch_size(engine, configured, server) if batched else 0, reason)


def _decide(engine: Engine, max_batch_size: int | None) -> Batchability:
    if max_batch_size is None:
        return check_batchable(engine)
    if max_batch_size == 0:
        return Batchability(False, "the configuration says so (max_batch_size = 0)")
    if not engine.signature.first_dimension_is_dynamic():
        shapes = ", ".join(
            f"{spec.name} {list(spec.shape)}" for spec in (*engine.signature.inputs, *engine.signature.outputs)
        )
        raise ConfigError(
            f"max_batch_size = {max_batch_size} needs inputs, and a dynamic first dimension everywhere;"
            f" the graph has {shapes if engine.signature.inputs else 'no inputs'}."
            " Set max_batch_size = 0 or export the model with a dynamic batch dimension"
        )
    return Batchability(True, f"the configuration says so (max_batch_size = {max_batch_size})")


def _max_batch_size(engine: Engine, configured: int | None, server: ServerConfig) -> int:
    """The configured size, or the server's; no more than the engine was built for."""
    if engine.max_rows is None:
        return configured or server.default_max_batch_size
    if configured and configured > engine.max_rows:
        raise ConfigError(
            f"max_batch_size = {configured}, but the profiles of the TensorRT engine end at {engine.max_rows} rows;"
            " give profiles that go as far, or none"
        )
    return configured or min(server.default_max_batch_size, engine.max_rows)
