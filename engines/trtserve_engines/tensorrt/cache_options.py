"""Where engines are kept, as options; and the cache that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trtserve_engines.config import check_at_least, option
from trtserve_engines.tensorrt.cache_folder import default_folder, read_secret
from trtserve_engines.tensorrt.engine_cache import EngineCache


@dataclass(frozen=True)
class CacheOptions:
    """Which engine cache is used, and how much it may hold."""

    engine_cache: str = option(
        "", "folder that TensorRT engines are kept in; empty = trtserve/engines in the user's cache folder"
    )
    engine_cache_max_bytes: int = option(
        64 << 30, "size that the engine cache is kept below, by removing the least recently used; 0 = no limit"
    )
    engine_cache_key: str = option(
        "", "file with a secret that engines are signed with; with it only engines signed with it are used"
    )

    def __post_init__(self) -> None:
        check_at_least(self, 0, "engine_cache_max_bytes")

    def open(self, environment: Mapping[str, str]) -> EngineCache:
        """The cache, made where it is missing. Raises EngineCacheError where it cannot be trusted or made."""
        folder = Path(self.engine_cache) if self.engine_cache else default_folder(environment)
        secret = read_secret(Path(self.engine_cache_key)) if self.engine_cache_key else None
        return EngineCache(folder.absolute(), max_bytes=self.engine_cache_max_bytes, secret=secret)
