"""From a configuration to a Result: opens what is to be measured and has the session measure it."""

from __future__ import annotations

import dataclasses
from typing import Any

from trtserve_client.load.comparison import measure_targets, plan_targets, price_targets
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.environment import environment
from trtserve_client.load.lanes import ServerLane
from trtserve_client.load.ratios import ratios_of
from trtserve_client.load.results import Result
from trtserve_client.load.session import Session, capacity_levels

_SECRET = ("metadata", "private_key")


def measured(session: Session, config: LoadConfig, plan: str, command: str, time: str) -> Result:
    """The result of a plan file, of --compare, or of one server; `time` is when it began. Raises LoadError."""
    where = environment()
    if plan or config.compare:
        targets = plan_targets(plan) if plan else price_targets(config)
        servers = measure_targets(session, targets)
        levels = session.levels()
        first = targets.first
        levels.sort(key=lambda level: level.target != first)
        complete = {level.target for level in levels} >= {first}
        settings = {name: _settings(each) for name, each in targets.by_name.items()}
        return Result(
            title="Servers side by side" if plan else f"{config.model}: the protocol's price",
            kind="compare",
            command=command,
            time=time,
            environment=where | {f"server {name}": server for name, server in servers.items()},
            settings=settings,
            levels=levels,
            ratios=ratios_of(levels, first) if complete else (),
            interrupted=session.stop.is_set(),
        )
    with ServerLane("", config) as lane:
        capacity = session.find_capacity(lane, config) if config.find_capacity else 0.0
        if not config.find_capacity:
            session.measure_levels(lane, config)
        server = lane.target.server
    levels = session.levels()
    return Result(
        title=f"{config.model} at {config.url}",
        kind="capacity" if config.find_capacity else "levels",
        command=command,
        time=time,
        environment=where | {"server": server},
        settings=_settings(config),
        levels=capacity_levels(levels) if config.find_capacity else levels,
        capacity=capacity,
        interrupted=session.stop.is_set(),
    )


def _settings(config: LoadConfig) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in _SECRET}
