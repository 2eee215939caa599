"""The commands that look after the cache and need no GPU: list, show, verify, prune."""

from __future__ import annotations

import dataclasses
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from trtserve_engines.config import ConfigError
from trtserve_engines.tensorrt.cli.outcome import (
    EXIT_FAILED,
    Outcome,
    count_text,
    duration_text,
    size_text,
    table,
    time_text,
)
from trtserve_engines.tensorrt.cli.quantities import bytes_from_text, seconds_from_text
from trtserve_engines.tensorrt.engine_cache import EngineCache, Listed

_SHORT = 12


def list_engines(cache: EngineCache, _: Namespace) -> Outcome:
    """Every engine, the one that was used last first, and what was set aside."""
    entries, damaged = cache.entries(), cache.damaged()
    total = sum(entry.size_bytes for entry in entries)
    data = {
        "folder": str(cache.folder),
        "total_bytes": total,
        "engines": [_entry_data(entry) for entry in entries],
        "damaged": damaged,
    }
    rows = [_row(entry) for entry in entries]
    lines = [table(("KEY", "MODEL", "PRECISION", "GPU", "TENSORRT", "SIZE", "LAST USED"), rows)] if rows else []
    lines.append(f"{count_text(len(entries), 'engine')}, {size_text(total)}, in {cache.folder}")
    lines += [f"set aside: {digest[:_SHORT]}: {reason}" for digest, reason in damaged.items()]
    return Outcome(data, "\n".join(lines))


def show(cache: EngineCache, arguments: Namespace) -> Outcome:
    """All that is known of one engine."""
    entry = entry_of(cache, arguments.key)
    data = _entry_data(entry)
    sidecar = entry.sidecar
    if sidecar is None:
        return Outcome(data, f"{entry.digest}: damaged: {entry.problem}", EXIT_FAILED)
    lines = [
        f"key        {entry.digest}",
        f"model      {sidecar.model_path}",
        f"plan       {size_text(sidecar.plan_bytes)}, SHA-256 {sidecar.plan_sha256}",
        f"built      {time_text(sidecar.created)}, in {duration_text(sidecar.build_s)}",
        f"last used  {time_text(entry.last_used)}",
        f"signed     {'yes' if sidecar.hmac else 'no'}",
    ]
    lines += ["", "built from", *_tree(sidecar.key)]
    lines += ["", "inputs and outputs", *(f"  {_tensor_text(tensor)}" for tensor in sidecar.io)]
    for title, values in (("accuracy", sidecar.accuracy), ("memory", sidecar.memory)):
        if values:
            lines += ["", title, *_tree(values)]
    return Outcome(data, "\n".join(lines))


def verify(cache: EngineCache, arguments: Namespace) -> Outcome:
    """Reads every byte of the engines named, or of all; damage is said and leaves exit code 1."""
    entries = [entry_of(cache, key) for key in arguments.key] or cache.entries()
    problems = {entry.digest: cache.verify(entry.digest) for entry in entries}
    damaged = {digest: problem for digest, problem in problems.items() if problem}
    lines = [f"{digest[:_SHORT]}  {problem or 'good'}" for digest, problem in problems.items()]
    lines.append(f"{len(problems) - len(damaged)} of {len(problems)} engines are good")
    if damaged:
        lines.append("Damaged engines are never served: the next start sets them aside and builds them again.")
    data = {"good": sorted(problems.keys() - damaged.keys()), "damaged": damaged}
    return Outcome(data, "\n".join(lines), EXIT_FAILED if damaged else 0)


def prune(cache: EngineCache, arguments: Namespace) -> Outcome:
    """Removes what was not used lately, or what is too much; and what was set aside."""
    if arguments.max_bytes is None and arguments.older_than is None:
        raise ConfigError("nothing to go by; say --max-bytes SIZE or --older-than DURATION")
    max_bytes = bytes_from_text(arguments.max_bytes, "--max-bytes") if arguments.max_bytes else None
    age_s = seconds_from_text(arguments.older_than, "--older-than") if arguments.older_than else None
    before = sum(entry.size_bytes for entry in cache.entries())
    removed = cache.prune(max_bytes=max_bytes, unused_since=None if age_s is None else time.time() - age_s)
    left = sum(entry.size_bytes for entry in cache.entries())
    text = (
        f"{count_text(len(removed), 'engine')} removed, {size_text(before - left)} freed;"
        f" {size_text(left)} left in {cache.folder}"
    )
    return Outcome({"removed": removed, "freed_bytes": before - left, "left_bytes": left}, text)


def entry_of(cache: EngineCache, prefix: str) -> Listed:
    """The entry whose key begins with `prefix`. Raises ConfigError where there is not just one."""
    matching = [entry for entry in cache.entries() if entry.digest.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ConfigError(f"key {prefix!r} is the beginning of {len(matching)} engines' keys; give more of it")
    raise ConfigError(f"key {prefix!r} is no engine's in {cache.folder}; trtserve-build list shows them")


def _entry_data(entry: Listed) -> dict[str, Any]:
    known = dataclasses.asdict(entry.sidecar) if entry.sidecar else {}
    return {
        "digest": entry.digest,
        "size_bytes": entry.size_bytes,
        "last_used": entry.last_used,
        "problem": entry.problem,
        **known,
    }


def _row(entry: Listed) -> Sequence[str]:
    short, size, used = entry.digest[:_SHORT], size_text(entry.size_bytes), time_text(entry.last_used)
    if entry.sidecar is None:
        return short, "(damaged)", "", "", "", size, used
    key = entry.sidecar.key
    model = entry.sidecar.model_path.rpartition("/")[2]
    precision = str(key.get("build", {}).get("precision", ""))
    return short, model, precision, str(key.get("gpu", {}).get("name", "")), str(key.get("tensorrt", "")), size, used


def _tensor_text(tensor: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in tensor.values())


def _tree(values: Mapping[str, Any], indent: str = "  ") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", *_tree(value, indent + "  ")]
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            lines += [f"{indent}{name}", *(line for item in value for line in _tree(item, indent + "  "))]
        else:
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            lines.append(f"{indent}{name} = {text}")
    return lines
