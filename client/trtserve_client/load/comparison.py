"""Targets measured in turn: the ways to one server for the protocol's price, or the servers of a plan file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtserve_client.load.bare import BareLane
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import UsageError
from trtserve_client.load.lanes import Lane, ServerLane
from trtserve_client.load.loads import Load, loads_of
from trtserve_client.load.options import config_from_table
from trtserve_client.load.probe import connection_of, find_target, open_client
from trtserve_client.load.session import Session
from trtserve_client.load.sources import requests_from_config
from trtserve_client.load.unused import check_used, unused

BARE = "in-process"


@dataclass(frozen=True)
class Targets:
    """What is compared: names and their configurations; the first one is what the others are put in ratio to."""

    by_name: Mapping[str, LoadConfig]
    rounds: int

    @property
    def first(self) -> str:
        """The target that the others are put in ratio to."""
        return BARE if BARE in self.by_name else next(iter(self.by_name))


def price_targets(config: LoadConfig) -> Targets:
    """The ways of --compare to one server, each as a configuration of its own."""
    plain = dataclasses.replace(config, compare=(), concurrency=config.concurrencies)
    return Targets({kind: _way(plain, kind) for kind in config.compare}, config.repeats)


def plan_targets(path: str) -> Targets:
    """The targets of a plan file. Raises UsageError that names the table and the key."""
    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"plan {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"plan {path}: {error}") from None
    if unknown := set(document) - {"load", "target"}:
        raise UsageError(f"plan {path}: {sorted(unknown)[0]!r} is unknown; known are [load] and [[target]]")
    base = config_from_table(_table(document.get("load", {}), f"{path}: load"), f"plan {path}: load")
    tables = document.get("target", [])
    if not isinstance(tables, list) or len(tables) < 2:
        raise UsageError(f"plan {path}: at least two [[target]] tables are wanted, each with a name and a url")
    configs: dict[str, LoadConfig] = {}
    shared = set(document.get("load", {}))
    for number, table in enumerate(tables, 1):
        name, config = _target(_table(table, f"{path}: target {number}"), base, f"plan {path}: target {number}")
        if name in configs:
            raise UsageError(f"plan {path}: two targets are called {name!r}")
        configs[name] = config
        # What [load] says may be for some of the targets.
        shared &= set(unused(config, shared)) - ({"model_file"} if name == BARE else set())
    if shared:
        check_used(base, sorted(shared), f"plan {path}: load, for no target: ")
    return Targets(configs, base.repeats)


def measure_targets(session: Session, targets: Targets) -> dict[str, str]:
    """Measures all in rounds; gives each target's server as it names itself. Raises LoadError at the start."""
    with ExitStack() as stack:
        lanes = _open(targets, stack)
        loads = {name: _only_load(name, config) for name, config in targets.by_name.items()}
        session.measure_in_turn(lanes, lambda lane: loads[lane.name], targets.rounds)
        return {lane.name: lane.target.server for lane in lanes if isinstance(lane, ServerLane)}


def _open(targets: Targets, stack: ExitStack) -> Sequence[Lane]:
    lanes: list[Lane] = []
    for name, config in targets.by_name.items():
        if name == BARE and config.model_file:
            lanes.append(stack.enter_context(_bare_lane(name, config)))
        else:
            lanes.append(stack.enter_context(ServerLane(name, config)))
    return lanes


def _bare_lane(name: str, config: LoadConfig) -> BareLane:
    """The bare engine with the request that the server gets, which takes the server's metadata to make."""
    if not Path(config.model_file).is_file():
        raise UsageError(f"--model-file {config.model_file} is no file")
    with open_client(connection_of(config)) as client:
        target = find_target(client, config)
    return BareLane(name, config, requests_from_config(config, target.model)[0])


def _way(config: LoadConfig, kind: str) -> LoadConfig:
    if kind == "uds":
        return dataclasses.replace(config, url=config.uds_url)
    if kind == "stream":
        return dataclasses.replace(config, concurrency=(), streams=1, in_flight=config.concurrency)
    return dataclasses.replace(config, shared_memory=kind == "shm")


def _target(table: Mapping[str, Any], base: LoadConfig, where: str) -> tuple[str, LoadConfig]:
    values = dict(table)
    name = values.pop("name", "")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}: a name is wanted")
    config = config_from_table(values, where, base)
    if not config.model:
        raise UsageError(f"{where}: no model; give one here or in [load]")
    if name != BARE:
        check_used(config, values, f"{where}: ")
    return name, config


def _only_load(name: str, config: LoadConfig) -> Load:
    if config.trace or config.find_capacity:
        raise UsageError(f"target {name}: a comparison takes a concurrency or a rate, no trace and no search")
    if not config.open_loop and not config.concurrency and not config.streams:
        config = dataclasses.replace(config, concurrency=(16,))
    loads = loads_of(config)
    if len(loads) != 1:
        raise UsageError(f"target {name}: a comparison takes one load, given are {len(loads)}")
    return loads[0]


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"plan {where} must be a table")
    return value
